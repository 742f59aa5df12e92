"""A plugin of pytest: Hypothesis says what it found as it found it, and looks for nothing smaller.

That something is found is all that counts here; to make it small takes a minute.
"""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile("found", phases=(Phase.explicit, Phase.generate), database=None)
settings.load_profile("found")
