"""The entry point of `headrace`: Ctrl-C while the verbs are being imported ends without a traceback."""

import gc

# Nearly all that a start makes stays. To look through it for cycles, time and again, takes a tenth of the start.
gc.set_threshold(100_000)

try:
    from headrace.cli.verbs import Verbs, app
except KeyboardInterrupt:
    raise SystemExit(130) from None

__all__ = ["Verbs", "app"]
