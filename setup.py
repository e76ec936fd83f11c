"""Puts the recipes of configs/ and the toy text of data/ into the wheel; see pyproject.toml."""

from setuptools import find_packages, setup

# Both stay at the top of the project, where a reader looks for them.
OUTSIDE = {'gptjax.configs': 'configs', 'gptjax.data': 'data'}

setup(
    packages=[*find_packages(include=['gptjax', 'gptjax.*']), *OUTSIDE],
    package_dir=OUTSIDE,
    package_data={
        'gptjax': ['py.typed', 'web/*'],
        'gptjax.explain': ['web/*'],
        'gptjax.report': ['web/*'],
        'gptjax.serve': ['web/*'],
        'gptjax.text': ['*.toml'],
        'gptjax.data': ['toy_language.txt'],
    },
)
