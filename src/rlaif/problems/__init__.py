"""Problems: the built-in sets, loaders for everybody else's, and the checks that make a set worth training on."""

from rlaif.problems.load import builtin_topics, load_problems, measured_pass_rates, pass_rates_by_model
from rlaif.problems.schema import assign_roles, problem_from_dict, problem_to_dict

__all__ = ["assign_roles", "builtin_topics", "load_problems", "measured_pass_rates", "pass_rates_by_model", "problem_from_dict", "problem_to_dict"]
