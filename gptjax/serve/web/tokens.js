'use strict';
// Tokens as elements: whole characters, colours of surprise, and the list of alternatives.

// OpenAI writes a part of a character as bytes:\xe2\x82.
function bytesOf(text) {
  if (!text.startsWith('bytes:')) return new TextEncoder().encode(text);
  return Uint8Array.from(text.match(/\\x(..)/g) || [], (part) => parseInt(part.slice(2), 16));
}

class TokenView {
  constructor(box, onPick) {
    this.box = box;
    this.onPick = onPick;
    this.tokens = []; // {id, text, logprob, likeliest: [[text, logprob]], element}
    this.decoder = new TextDecoder('utf-8');
  }

  // Adds the tokens of a logprobs object; `heat` colours them by their surprise.
  add(logprobs, { heat = false, before = [] } = {}) {
    logprobs.tokens.forEach((text, i) => {
      const top = Object.entries(logprobs.top_logprobs[i] || {});
      const found = { id: logprobs.token_ids[i], text, logprob: logprobs.token_logprobs[i] };
      found.likeliest = top.sort((a, b) => b[1] - a[1]);
      // A character that ends in this token is shown with it; its earlier parts show nothing.
      const shown = this.decoder.decode(bytesOf(text), { stream: true });
      found.shown = shown;
      const number = this.tokens.length;
      found.element = make('span', { className: 'token', textContent: shown, tabIndex: number ? -1 : 0 });
      found.element.setAttribute('role', 'button');
      if (found.logprob !== null) found.element.title = tooltip(found);
      if (heat && found.logprob !== null) {
        const share = Math.min(-found.logprob / 8, 1);
        found.element.style.backgroundColor = `rgba(var(--less), ${share.toFixed(2)})`;
      }
      if (before[number] !== undefined && before[number] !== found.id) {
        found.element.classList.add('flipped');
      }
      found.element.dataset.number = number;
      this.tokens.push(found);
      this.box.append(found.element);
    });
  }

  listen() {
    this.box.addEventListener('click', (event) => this.open(event.target.closest('.token')));
    this.box.addEventListener('keydown', (event) => {
      const current = event.target.closest('.token');
      if (!current) return;
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) {
        const rtl = getComputedStyle(current).direction === 'rtl' ? -1 : 1;
        const next = this.tokens[Number(current.dataset.number) + step * rtl];
        if (next) {
          current.tabIndex = -1;
          next.element.tabIndex = 0;
          next.element.focus();
        }
        event.preventDefault();
      } else if (event.key === 'Enter' || event.key === ' ') {
        this.open(current);
        event.preventDefault();
      }
    });
  }

  // Shows the alternatives of a token; picking one calls onPick(text before, alternative).
  open(element) {
    if (!element) return;
    const number = Number(element.dataset.number);
    const chosen = this.tokens[number];
    if (!chosen.likeliest.length) return;
    const before = this.textBefore(number);
    const panel = $('alternatives');
    panel.replaceChildren(
      make('p', { className: 'faint', textContent: describe(chosen) }),
      ...chosen.likeliest.map(([text, logprob]) => {
        const percent = `${(100 * Math.exp(logprob)).toFixed(1)}%`;
        const button = make('button', { type: 'button' });
        button.append(make('bdi', { textContent: visible(text) }), make('span', { textContent: percent }));
        button.style.setProperty('--share', percent);
        button.classList.toggle('chosen', text === chosen.text);
        button.addEventListener('click', () => {
          closeAlternatives();
          this.onPick(before, text);
        });
        return button;
      }),
    );
    const at = element.getBoundingClientRect();
    panel.hidden = false;
    const right = Math.max(0, document.documentElement.clientWidth - panel.offsetWidth - 8);
    panel.style.left = `${Math.min(at.left, right) + scrollX}px`;
    panel.style.top = `${at.bottom + scrollY + 2}px`;
    panel.querySelector('button').focus();
    panel.onkeydown = (event) => {
      const buttons = [...panel.querySelectorAll('button')];
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) {
        const next = buttons[buttons.indexOf(document.activeElement) + step];
        if (next) next.focus();
        event.preventDefault();
      } else if (event.key === 'Escape') {
        closeAlternatives();
        element.focus();
        event.stopPropagation();
      }
    };
  }

  textBefore(number) {
    return this.tokens.slice(0, number).map((token) => token.shown).join('');
  }
}

function closeAlternatives() {
  $('alternatives').hidden = true;
}

function visible(text) {
  return text.replaceAll('\n', '↵').replaceAll(' ', '␣');
}

function percentOf(logprob) {
  return `${(100 * Math.exp(logprob)).toPrecision(3)}%`;
}

function describe(token) {
  const bits = (-token.logprob / Math.LN2).toFixed(2);
  return `${visible(token.text)}  ${percentOf(token.logprob)}, ${bits} bits`;
}

// What is shown on pointing: the token, and what the model held likely in its place.
function tooltip(token) {
  const others = token.likeliest.slice(0, 5).map(([text, logprob]) => `${visible(text)}  ${percentOf(logprob)}`);
  return [describe(token), '', ...others].join('\n');
}

document.addEventListener('click', (event) => {
  if (!event.target.closest('#alternatives, .token')) closeAlternatives();
});
