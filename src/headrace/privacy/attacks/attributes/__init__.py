"""What can be read out of a person's comments: attribute inference, and defences measured by it (arXiv 2406.07217)."""

from headrace.privacy.attacks.attributes.audit import run

__all__ = ["run"]
