'use strict';
// What is drawn under a text: where a translation looked, and the style of a sentence from noise.

// A part of the page that is asked for when it is opened, since it takes the server some seconds.
function picture(model, asked, text) {
  const translates = model.base.task === 'translation';
  const box = make('details', { className: 'picture' });
  const inside = make('div', { className: 'scroll' });
  box.append(make('summary', { textContent: translates ? 'Attention to the source' : 'Style' }), inside);
  const { prompt, seed, temperature } = asked;
  const body = { model: model.name, prompt, ...(translates ? { text } : { seed, temperature }) };
  box.addEventListener('toggle', async () => {
    if (!box.open || inside.childElementCount) return;
    inside.textContent = '…';
    try {
      const found = await (await call('/look', body)).json();
      inside.replaceChildren(...(translates ? attention(found) : style(found)));
    } catch (error) {
      inside.replaceChildren(make('p', { textContent: error.message }));
    }
  });
  return box;
}

// A row for each token of the translation, a column for each of the source.
function attention({ tokens, source, layers }) {
  const picker = make('select');
  layers.forEach((_, i) => picker.append(make('option', { value: i, textContent: `layer ${i + 1}` })));
  picker.value = layers.length - 1;
  const rows = make('tbody');
  const draw = () => {
    const weights = layers[picker.value];
    rows.replaceChildren(...tokens.map((token, t) => {
      const cells = source.map((from, s) => {
        const title = `${token} looked at ${from}: ${(100 * weights[t][s]).toFixed(1)}%`;
        return shaded(weights[t][s], title);
      });
      return make('tr', {}, make('th', { scope: 'row', textContent: token }), ...cells);
    }));
  };
  picker.addEventListener('change', draw);
  draw();
  const heads = source.map((token) => make('th', { scope: 'col', textContent: token }));
  const label = make('label', { textContent: 'Mean of the heads of ' });
  label.append(picker);
  return [label, make('table', { className: 'shades' }, make('thead', {}, make('tr', {}, make('th'), ...heads)), rows)];
}

// A row for each word, a column for each dimension of its style.
function style({ tokens, style: places, critic, critic_real: real }) {
  const note = `The critic gives this sentence ${critic}, and real ones ${real} on average.`;
  const rows = tokens.map((token, t) => {
    const cells = places[t].map((value, i) => shaded(value, `${token}, dimension ${i}: ${value}`));
    return make('tr', {}, make('th', { scope: 'row', textContent: token }), ...cells);
  });
  return [make('p', { className: 'faint', textContent: note }), make('table', { className: 'shades dense' }, ...rows)];
}

// A cell as dark as a number from -1 to 1 is large; below 0 in the other colour.
function shaded(value, title) {
  const cell = make('td', { title });
  const colour = value < 0 ? '--less' : '--much';
  cell.style.backgroundColor = `rgba(var(${colour}), ${Math.abs(value).toFixed(2)})`;
  return cell;
}
