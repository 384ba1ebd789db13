"""Sample data for the demo: what people asked a home, and what should have been suggested.

``load.py`` turns the shipped file into a database; it needs the standard library only. ``build.py`` is the recipe that
made the file: ``grammar.py`` draws the questions, ``answers.py`` and ``suggestions.py`` answer them, ``defects.py``
plants the unusable rows.
"""
