"""The policy room: weights on disk, the model with its adapter and value head, the sampler, and action log-probabilities.

Import the submodules (`rlaif.policy.model`, `.sampler`, `.logps`, `.weights`); this file stays empty of torch on purpose.
"""
