'use strict';
// The settings, which are in the page's address, so that it can be sent to others.

const settings = {
  controls: [],

  build(controls) {
    this.controls = controls;
    $('controls').replaceChildren(...controls.map((control) => {
      const { name, meaning, value, step, low, high } = control;
      const limits = { min: low, max: high, step };
      const slider = make('input', { type: 'range', ...limits, value, tabIndex: -1, ariaHidden: 'true' });
      const number = make('input', { type: 'number', ...limits, value, id: name });
      slider.addEventListener('input', () => { number.value = slider.value; });
      number.addEventListener('input', () => { slider.value = number.value; });
      const label = make('label', { className: 'control', htmlFor: name });
      label.append(make('span', { textContent: name }), slider, number, make('small', { textContent: meaning }));
      return label;
    }));
  },

  // The fields of a request that differ from the defaults, with those that are always sent.
  body() {
    const found = { seed: Number($('seed').value) };
    for (const { name, value } of this.controls) {
      const set = $(name).value;
      if (set !== "" && (Number(set) !== value || name === "max_tokens")) found[name] = Number(set);
    }
    return found;
  },

  save() {
    const found = new URLSearchParams(Object.entries(this.body()));
    found.set('model', $('model').value);
    if ($('other').value) found.set('other', $('other').value);
    found.set('text', $('prompt').value);
    history.replaceState(null, '', `#${found}`);
  },

  load() {
    const found = new URLSearchParams(location.hash.slice(1));
    for (const name of ['seed', ...this.controls.map((control) => control.name)]) {
      if (found.has(name) && Number.isFinite(Number(found.get(name)))) {
        $(name).value = found.get(name);
        $(name).dispatchEvent(new Event('input'));
      }
    }
    for (const name of ['model', 'other']) {
      const options = [...$(name).options].map((option) => option.value);
      if (options.includes(found.get(name))) $(name).value = found.get(name);
    }
    $('prompt').value = found.get('text') ?? '';
  },
};
