"""A verifiers environment of rlaif's problems and reward. Its folder must be on PYTHONPATH: `vf-eval rlaif_env ...`."""

from rlaif.integrations.verifiers import CodeTaskset

__all__ = ["CodeTaskset"]
