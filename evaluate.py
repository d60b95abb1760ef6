"""Evaluate the trained model (the latest run), or talk to it.

python evaluate.py                   share of held-out problems solved, with its interval
python evaluate.py --interactive     type a task, see the code, run a test, hear the judge
"""

import sys

from rlaif.cli.learner import evaluate_main

if __name__ == "__main__":
    sys.exit(evaluate_main(sys.argv[1:]))
