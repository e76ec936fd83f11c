"""Language models of the server: prompts as token ids, and the engine with its slots."""

from gptjax.errors import UserError
from gptjax.parallel.mesh import rounded_up
from gptjax.run import Run
from gptjax.serve import scoring
from gptjax.serve.fields import MOST_PROMPT, Completion, FieldError
from gptjax.serve.models import Prompt, Served
from gptjax.serve.slots import SlotEngine
from gptjax.tasks.language_model.task import LanguageModel
from gptjax.text.prompts import encode_prompt

# Multiplications between two looks at who came and who left: of a chunk, unless it would be
# shorter than 4 tokens or longer than 32, and of new contexts (0.1 s on two CPU cores).
CHUNK_WORK, CONTEXTS_WORK = 4e8, 1e10


class ServedLanguageModel(Served):
    """A language model at a checkpoint."""

    def __init__(self, name: str, run: Run, task: LanguageModel, slots: int) -> None:
        """Computes nothing yet."""
        super().__init__(name, run)
        self._task = task
        slots = rounded_up(slots, task.config.mesh)
        self._params, layout = task.placed(run.params, run.config.sample, rows=slots)
        per_token = task.flops_per_token() / 6  # multiplications, forward
        chunk = round(CHUNK_WORK / (slots * per_token))
        self._engine = SlotEngine(
            task.model,
            self._params,
            rows=slots,
            chunk=min(max(chunk, 4), 32),
            together=CONTEXTS_WORK / per_token,
            tokenizer=task.tokenizer,
            layout=layout,
        )

    @property
    def source(self) -> SlotEngine:
        """What generates."""
        return self._engine

    def warm_up(self) -> None:
        """Compiles all programs."""
        self._engine.warm_up()
        self.score((0, 0))

    def check(self, completion: Completion) -> list[Prompt]:
        """The prompts as token ids; raises FieldError."""
        vocab_size = self._task.tokenizer.vocab_size
        for token, _ in completion.logit_bias:
            if token >= vocab_size:
                raise FieldError(
                    f'logit_bias: {token} is no token id: they are 0 to {vocab_size - 1}',
                    'logit_bias',
                )
        prompts = [self._prompt(prompt) for prompt in completion.prompts]
        longest = max(len(prompt.ids) for prompt in prompts)
        most = self._task.config.model.block_size + 1
        if completion.fields.echo and completion.fields.logprobs >= 0 and longest > most:
            raise FieldError(
                f'the prompt has {longest} tokens, and echo with logprobs takes up to {most}; '
                'send it in parts',
                'prompt',
            )
        return prompts

    def _prompt(self, prompt: str | tuple[int, ...]) -> Prompt:
        tokenizer = self._task.tokenizer
        if not isinstance(prompt, str):
            for token in prompt:
                if not 0 <= token < tokenizer.vocab_size:
                    raise FieldError(
                        f'{token} is no token id: they are 0 to {tokenizer.vocab_size - 1}',
                        'prompt',
                    )
            return Prompt(tokenizer.decode(prompt), prompt)
        try:
            ids = encode_prompt(prompt, tokenizer, self._task.config.data).tolist()
        except UserError as error:
            raise FieldError(str(error), 'prompt') from None
        if len(ids) > MOST_PROMPT:
            raise FieldError(
                f'the prompt has {len(ids):,} tokens and may have {MOST_PROMPT:,}', 'prompt'
            )
        return Prompt(prompt, tuple(ids))

    def submit(self, prompt: Prompt, completion: Completion) -> list[int]:
        """Queues the texts of a prompt; returns their numbers."""
        return [
            self._engine.submit(
                prompt.ids,
                completion.rules,
                seed=completion.seed,
                sample=sample,
                max_new_tokens=completion.fields.max_tokens,
                stop=completion.stop,
                scores=completion.wants_scores,
            )
            for sample in range(completion.drawn)
        ]

    def score(self, ids: tuple[int, ...]) -> scoring.Scores:
        """Log-probabilities of the tokens of a prompt but the first."""
        return scoring.score(self._task.model, self._params, ids, self._engine.likeliest)
