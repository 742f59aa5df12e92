"""minibroker under the interfaces of other job libraries; each module needs the extra of its name."""
