"""Calendars: when a cron expression is due, in its time zone. No clock is read: instants go in and come out.

The core keeps what is due next, as milliseconds; it knows neither expressions nor zones.
"""
