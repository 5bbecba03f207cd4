"""Model classes of public libraries: honest programs, and what becomes of them with one mistake in each.

They run in an environment of their own, in which nothing may bring another torch:

    python -m venv wild
    wild/bin/pip install torch==2.13.0 -c constraints.txt
    wild/bin/pip install -e . -c constraints.txt
    wild/bin/pip install --no-deps -r benchmarks/wild/requirements.txt
    wild/bin/python -m benchmarks.wild.plain --seeds 1

A library that is not installed is said to be missing, and the others run without it. Where no torchvision was built for
this torch, PyPI's wheel serves (torchvision_operators.py).
"""
