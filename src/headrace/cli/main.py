"""The entry point of `headrace`: Ctrl-C while the verbs are being imported ends without a traceback."""

try:
    from headrace.cli.verbs import Verbs, app
except KeyboardInterrupt:
    raise SystemExit(130) from None

__all__ = ["Verbs", "app"]
