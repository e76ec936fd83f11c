'use strict';
// The texts, side by side: one column for each model and sample.

const columns = {
  before: new Map(), // The tokens of the last texts, by column, for the marks of what flipped.
  stopper: null,

  async generate(body, models, prompt, onPick) {
    this.stop();
    closeAlternatives();
    this.stopper = new AbortController();
    $('columns').replaceChildren();
    const kept = this.before;
    this.before = new Map();
    const { signal } = this.stopper;
    const jobs = models.map((model) => this.fill(model, body, { prompt, onPick, signal, kept }));
    await Promise.all(jobs);
  },

  async fill(model, body, { prompt, onPick, signal, kept }) {
    const views = Array.from({ length: body.n || 1 }, (_, i) => {
      const title = (body.n || 1) > 1 ? `${model.name}, text ${i + 1}` : model.name;
      const { text, note } = this.column(title);
      const continues = model.base.task !== 'translation';
      if (continues) text.append(make('span', { className: 'given', textContent: prompt }));
      const view = new TokenView(text, onPick);
      view.listen();
      view.note = note;
      view.key = `${i} ${prompt}`;
      view.written = '';
      return view;
    });
    const asked = { ...body, model: model.name };
    if (!model.scores) delete asked.logprobs;
    await stream(asked, signal, ({ choices }) => {
      for (const { index, text, logprobs, finish_reason: finish } of choices) {
        const view = views[index];
        view.written += text;
        if (logprobs) {
          const key = `${model.place} ${view.key}`;
          view.add(logprobs, { before: kept.get(key) || [] });
          this.before.set(key, view.tokens.map((token) => token.id));
        } else {
          view.box.append(text);
        }
        if (finish) view.note.textContent = this.summary(view, finish);
        // The server draws the picture of a sentence from the same noise, which the first one has.
        if (finish && !model.scores && (index === 0 || model.base.task === 'translation')) {
          view.box.parentElement.append(picture(model, asked, view.written));
        }
      }
    });
  },

  summary(view, finish) {
    const ended = finish === 'stop' ? 'ended by itself' : 'ended at max_tokens';
    if (!view.tokens.length) return ended;
    const logprob = view.tokens.reduce((sum, token) => sum + token.logprob, 0);
    const flipped = view.box.querySelectorAll('.flipped').length;
    const marks = flipped ? `; ${flipped} differ from before` : '';
    return `${view.tokens.length} tokens, log-probability ${logprob.toFixed(2)}${marks}; ${ended}`;
  },

  column(title) {
    const text = make('div', { className: 'text', dir: 'auto' });
    const note = make('p', { className: 'faint note' });
    $('columns').append(make('div', { className: 'column' }, make('h2', { textContent: title }), text, note));
    return { text, note };
  },

  stop() {
    if (this.stopper) this.stopper.abort();
    this.stopper = null;
  },

  // Each token of a text by its surprise, and the bits for a character.
  async score(model, text, onPick) {
    if (!text) throw new Error('Surprise needs a text; type one.');
    this.stop();
    this.stopper = new AbortController();
    closeAlternatives();
    $('columns').replaceChildren();
    const body = { model: model.name, prompt: text, max_tokens: 0, echo: true, logprobs: 10 };
    const { choices } = await (await call('/v1/completions', body, this.stopper.signal)).json();
    const { logprobs } = choices[0];
    const { text: box, note } = this.column(`${model.name}: surprise`);
    const view = new TokenView(box, onPick);
    view.listen();
    view.add(logprobs, { heat: true });
    const nats = -logprobs.token_logprobs.slice(1).reduce((sum, value) => sum + value, 0);
    const first = [...view.tokens[0].shown].length;
    const characters = [...text].length - first;
    const bits = (nats / Math.LN2 / Math.max(characters, 1)).toFixed(3);
    note.textContent = `${bits} bits per character; ${(nats / Math.max(view.tokens.length - 1, 1)).toFixed(4)} nats per token`;
  },
};
