"""RLAIF for code generation: a policy writes Python, a judge and a sandbox grade it, RL updates the policy."""

__version__ = "0.1.0"
