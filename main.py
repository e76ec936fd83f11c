"""gptjax without an installation: trains a GPT and samples from it. See `python main.py --help`."""

from gptjax.cli import main

if __name__ == '__main__':
    main()
