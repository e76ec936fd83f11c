'use strict';
// Everything is drawn from `data`, for the selected token, layer and head in `chosen`.

const data = JSON.parse(document.getElementById('data').textContent);
const n = data.tokens.length;
const chosen = { t: 1, layer: 0, head: 0 };

// ---- numbers -------------------------------------------------------------------------------

function bytesOf(text) {
  const raw = atob(text);
  return Uint8Array.from(raw, (character) => character.charCodeAt(0));
}

function halfToNumber(h) {
  const sign = h & 0x8000 ? -1 : 1, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

// An array as the page has it: half floats, or the lower triangles of weights from 0 to 255.
function unpack(packed) {
  const bytes = bytesOf(packed.data);
  if (packed.type === 'triangle') {
    const size = packed.shape[1], each = size * (size + 1) / 2;
    return (head, t, s) => s > t ? 0 : bytes[head * each + t * (t + 1) / 2 + s] / 255;
  }
  const halves = new Uint16Array(bytes.buffer), [, b, c] = packed.shape;
  return (i, j, k = 0) => halfToNumber(halves[(i * b + j) * (c || 1) + k]);
}

function percent(p) {
  if (p >= 0.0995) return (100 * p).toFixed(0) + '%';
  if (p >= 0.001) return (100 * p).toFixed(p >= 0.01 ? 1 : 2) + '%';
  return p === 0 ? '0' : p.toExponential(0);
}

const fixed = (x, digits = 2) => (x < 0 ? '−' : '') + Math.abs(x).toFixed(digits);
const range = (count) => Array.from({ length: count }, (_, i) => i);

// ---- elements ------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in element && name !== 'list') element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const nameOf = (id) => data.names[id];
const shown = (id) => make('span', { className: 'shown' }, nameOf(id));
const cell = (content, number = false) => make('td', { className: number ? 'number' : '' }, content);

function table(head, rows, caption = '') {
  const header = make('tr', {}, ...head.map(([name, number]) =>
    make('th', { scope: 'col', className: number ? 'number' : '' }, name)));
  return make('table', {}, ...(caption ? [make('caption', {}, caption)] : []),
    make('thead', {}, header), make('tbody', {}, ...rows));
}

function bar(share) {
  const element = make('span', { className: share < 0 ? 'bar minus' : 'bar' });
  element.style.width = `${Math.min(6, 6 * Math.abs(share))}rem`;
  return element;
}

function colour(kind, strength) {
  return `rgba(${getComputedStyle(document.documentElement).getPropertyValue(kind)}, ${strength})`;
}

// A picture of numbers from -1 to 1, `scale` pixels for each.
function draw(canvas, rows, columns, scale, value) {
  canvas.width = columns * scale;
  canvas.height = rows * scale;
  const [much, less] = ['--much', '--less'].map((kind) =>
    getComputedStyle(document.documentElement).getPropertyValue(kind).split(',').map(Number));
  const context = canvas.getContext('2d'), image = context.createImageData(canvas.width, canvas.height);
  for (let y = 0; y < canvas.height; y++) for (let x = 0; x < canvas.width; x++) {
    const number = value(Math.floor(y / scale), Math.floor(x / scale));
    const alpha = 255 * Math.min(1, Math.abs(number));
    image.data.set([...(number > 0 ? much : less), alpha], 4 * (y * canvas.width + x));
  }
  context.putImageData(image, 0, 0);
}

// ---- the text ------------------------------------------------------------------------------

function surprise(t) {
  return t === 0 ? 0 : -Math.log2(data.outcomes[t - 1].probability);
}

function showText() {
  for (const t of range(n)) {
    const id = data.tokens[t];
    const title = t === 0 ? 'the first token: nothing comes before it'
      : `${percent(data.outcomes[t - 1].probability)}, rank ${data.outcomes[t - 1].rank}`;
    const button = make('button', {
      className: t < data.n_prompt ? 'token given' : 'token', title, type: 'button',
      disabled: t === 0, 'data-t': t, 'aria-pressed': 'false',
      'aria-label': `token ${t}: ${nameOf(id)}, ${title}`,
    }, nameOf(id));
    button.style.backgroundColor = colour('--much', Math.min(0.6, surprise(t) / 16));
    button.addEventListener('click', () => select(t));
    $('text').append(button);
    if (nameOf(id).endsWith('↵')) $('text').append(make('br'));
  }
}

function select(t) {
  chosen.t = Math.max(1, Math.min(n - 1, t));
  for (const button of $('text').querySelectorAll('button')) {
    const pressed = Number(button.dataset.t) === chosen.t;
    button.setAttribute('aria-pressed', pressed);
    button.tabIndex = pressed ? 0 : -1;  // One stop for the tab key; arrows do the rest.
    if (pressed) button.scrollIntoView({ block: 'nearest' });
  }
  showAll();
}

function onKey(event) {
  if (event.target.matches('select, input') || event.altKey || event.ctrlKey || event.metaKey) return;
  const back = $('text').dir === 'rtl' ? 'ArrowRight' : 'ArrowLeft';
  const next = back === 'ArrowLeft' ? 'ArrowRight' : 'ArrowLeft';
  if (event.key !== back && event.key !== next) return;
  event.preventDefault();
  select(chosen.t + (event.key === next ? 1 : -1));
  if (event.target.matches('.token')) $('text').querySelector(`[data-t="${chosen.t}"]`).focus();
}

// ---- what was expected ---------------------------------------------------------------------

function showPrediction() {
  const { t } = chosen, expected = data.predictions[t - 1], outcome = data.outcomes[t - 1];
  const words = `After ${t} token${t > 1 ? 's' : ''} came “${nameOf(outcome.id)}”: probability ` +
    `${percent(outcome.probability)}, rank ${outcome.rank}, a surprise of ${fixed(surprise(t))} bits. ` +
    `The model was unsure by ${fixed(expected.entropy)} bits (entropy).`;
  const cuts = Object.entries(expected.removed).map(([rule, p]) => `${rule} removes ${percent(p)}`);
  const rules = Object.entries(data.rules_shown).map(([rule, value]) => `${rule}=${value}`);
  $('prediction-words').textContent = words + ` Sampling rules: ${rules.join(', ') || 'none'}.` +
    (cuts.length ? ` Here ${cuts.join(', ')} of the probability.` : '');
  const rows = expected.ids.map((id, i) => {
    const rule = expected.removed_by[i];
    const row = make('tr', {}, cell(String(i + 1), true), cell(shown(id)),
      cell(percent(expected.probabilities[i]), true), cell(bar(expected.probabilities[i])),
      cell(percent(expected.sampled[i]), true), make('td', { className: 'rule' }, rule));
    row.className = (id === outcome.id ? 'followed ' : '') + (rule ? 'removed' : '');
    return row;
  });
  $('prediction-table').replaceChildren(table(
    [['rank', true], ['token'], ['probability', true], [''], ['after the rules', true], ['removed by']], rows));
}

// ---- attention -----------------------------------------------------------------------------

const layers = data.attention ? data.attention.map((layer) => layer && {
  weights: unpack(layer.weights), norms: unpack(layer.value_norms),
  queries: layer.queries && unpack(layer.queries), keys: layer.queries && unpack(layer.keys),
  values: layer.queries && unpack(layer.values), heads: layer.weights.shape[0],
  width: layer.queries && layer.queries.shape[2],
}) : [];

// The weight of a head from query t to key s, as the two switches say.
function weightOf(layer, head) {
  const { weights, norms } = layers[layer];
  const hide = $('hide-first').checked, weighted = $('weighted').checked;
  let scale = 1;
  if (weighted) {
    let most = 0;
    for (let t = 0; t < n; t++) for (let s = hide ? 1 : 0; s <= t; s++) {
      most = Math.max(most, weights(head, t, s) * norms(head, s));
    }
    scale = 1 / (most || 1);
  }
  return (t, s) => hide && s === 0 ? 0 : weights(head, t, s) * (weighted ? norms(head, s) * scale : 1);
}

function label(layer, head) {
  return data.heads.labels ? data.heads.labels[layer][head] : '';
}

function showHeads() {
  const most = Math.max(...layers.map((layer) => layer ? layer.heads : 0));
  $('heads').style.gridTemplateColumns = `repeat(${most}, minmax(1.2rem, 1fr))`;
  $('heads').replaceChildren(...layers.flatMap((layer, l) => layer ? range(layer.heads).map((h) => {
    const canvas = make('canvas');
    draw(canvas, n, n, 1, weightOf(l, h));
    const name = `layer ${l}, head ${h}${label(l, h) ? ': ' + label(l, h) : ''}`;
    const button = make('button', { type: 'button', title: name, 'aria-label': name,
      'aria-pressed': String(l === chosen.layer && h === chosen.head) }, canvas);
    button.addEventListener('click', () => { chosen.layer = l; chosen.head = h; showHeads(); showAll(); });
    return button;
  }) : []));
}

function showHead() {
  const { t, layer, head } = chosen, weight = weightOf(layer, head), query = t - 1;
  const scale = Math.max(2, Math.floor(420 / n));
  draw($('head'), n, n, scale, weight);
  const context = $('head').getContext('2d');
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue('--mark');
  context.strokeRect(0.5, query * scale + 0.5, n * scale - 1, scale - 1);
  $('head').setAttribute('aria-label', `Attention of layer ${layer}, head ${head}`);
  const change = data.heads.loss_increase[layer][head], scores = data.heads.scores;
  const does = label(layer, head);
  $('head-words').textContent = `Layer ${layer}, head ${head}` + (does ? `: ${does} head. ` : '. ') +
    (scores ? `On random tokens that come twice it looks with ${percent(scores.previous[layer][head])} at the ` +
      `token before, ${percent(scores.duplicate[layer][head])} at the same token, ` +
      `${percent(scores.induction[layer][head])} at what followed it. ` : '') +
    `The loss of this text is ${fixed(data.heads.loss, 3)} nats a token; without this head it is ` +
    `${fixed(Math.abs(change), 4)} ${change < 0 ? 'lower' : 'higher'}.`;
  const looks = range(query + 1).map((s) => [s, weight(query, s)]).sort((a, b) => b[1] - a[1]).slice(0, 10);
  const seen = range(n - query).map((i) => [query + i, weight(query + i, query)])
    .sort((a, b) => b[1] - a[1]).slice(0, 10);
  const rows = range(Math.max(looks.length, seen.length)).map((i) => make('tr', {},
    ...[looks[i], seen[i]].flatMap((pair) => pair
      ? [cell(String(pair[0]), true), cell(shown(data.tokens[pair[0]])), cell(fixed(pair[1], 3), true)]
      : [cell(''), cell(''), cell('')])));
  $('head-table').replaceChildren(table(
    [['place', true], ['it looks at'], ['weight', true], ['place', true], ['looks at it'], ['weight', true]],
    rows, `Token ${query}, “${nameOf(data.tokens[query])}”, which predicts “${nameOf(data.tokens[t])}”`));
}

function onHover(event) {
  const box = $('head').getBoundingClientRect();
  const at = (x, from, size) => Math.min(n - 1, Math.max(0, Math.floor((x - from) / size * n)));
  const t = at(event.clientY, box.top, box.height), s = at(event.clientX, box.left, box.width);
  const weight = weightOf(chosen.layer, chosen.head)(t, s);
  $('head-hover').textContent = s > t ? `token ${t} must not look at token ${s}, which comes later`
    : `token ${t} “${nameOf(data.tokens[t])}” looks at token ${s} “${nameOf(data.tokens[s])}”: ${fixed(weight, 3)}`;
}

function showHeadsTable() {
  const scores = data.heads.scores;
  const rows = data.heads.loss_increase.flatMap((layer, l) => layer.map((change, h) => make('tr', {},
    cell(`${l}.${h}`), cell(label(l, h)),
    ...(scores ? ['previous', 'duplicate', 'induction'].map((kind) => cell(fixed(scores[kind][l][h]), true)) : []),
    cell(fixed(change, 4), true))));
  const kinds = scores ? [['token before', true], ['same token', true], ['induction', true]] : [];
  $('heads-table').replaceChildren(
    table([['head'], ['label'], ...kinds, ['loss without it', true]], rows));
}

// ---- one head in numbers -------------------------------------------------------------------

function vector(get, head, t, width, most = 6) {
  const numbers = range(Math.min(width, most)).map((i) => fixed(get(head, t, i)));
  return `[${numbers.join(', ')}${width > most ? ', …' : ''}]`;
}

function showWalk() {
  const { t, layer, head } = chosen, query = t - 1, { queries, keys, values, width, weights } = layers[layer];
  if (!queries) {
    $('walk-words').textContent = `The numbers of layer ${layer} are not in this page, to keep it small.`;
    for (const id of ['walk-table', 'walk-output', 'walk-proof']) $(id).replaceChildren();
    return;
  }
  $('walk-words').textContent = `Layer ${layer}, head ${head}, token ${query} “${nameOf(data.tokens[query])}”. ` +
    `Its query is ${vector(queries, head, query, width)}, ${width} numbers. Each score is the query times a key, ` +
    `over √${width} = ${fixed(Math.sqrt(width))}; later tokens are masked; the softmax makes weights of the scores.`;
  const scores = range(query + 1).map((s) =>
    range(width).reduce((sum, i) => sum + queries(head, query, i) * keys(head, s, i), 0));
  const scaled = scores.map((score) => score / Math.sqrt(width)), most = Math.max(...scaled);
  const total = scaled.reduce((sum, x) => sum + Math.exp(x - most), 0);
  const softmax = scaled.map((x) => Math.exp(x - most) / total);
  const order = range(query + 1).sort((a, b) => softmax[b] - softmax[a]).slice(0, 12).sort((a, b) => a - b);
  const rows = order.map((s) => make('tr', {}, cell(String(s), true), cell(shown(data.tokens[s])),
    cell(vector(keys, head, s, width, 2)), cell(fixed(scores[s]), true), cell(fixed(scaled[s]), true),
    cell(fixed(softmax[s], 4), true), cell(bar(softmax[s])), cell(vector(values, head, s, width, 2))));
  if (t < n) rows.push(make('tr', { className: 'masked' }, cell(String(t), true), cell('later tokens'),
    cell(''), cell(''), cell('−∞', true), cell('0', true), cell('masked'), cell('')));
  $('walk-table').replaceChildren(table([['place', true], ['token'], ['key'], ['query × key', true],
    ['scaled', true], ['weight', true], [''], ['value']], rows,
    query + 1 > order.length ? `The ${order.length} largest weights of ${query + 1}` : ''));
  const output = (head_, _, i) => softmax.reduce((sum, w, s) => sum + w * values(head, s, i), 0);
  $('walk-output').textContent = `The output is the sum of weight × value: ${vector(output, head, 0, width)}.`;
  const error = Math.max(...softmax.map((w, s) => Math.abs(w - weights(head, query, s))));
  $('walk-proof').textContent = 'Computed in this page from queries and keys in half precision; the weights differ ' +
    `from the model’s, which the page has in steps of 1/255, by at most ${fixed(error, 4)}.`;
}

// ---- layers and parts ----------------------------------------------------------------------

function showLens() {
  const first = Math.max(0, Math.min(n - 10, chosen.t - 6)), places = range(Math.min(10, n)).map((i) => first + i);
  const head = [['after'], ...places.map((p) => [`${p}: ${nameOf(data.tokens[p])}`])];
  const rows = data.lens.map((reading, l) => make('tr', {}, make('th', { scope: 'row' }, l ? `layer ${l - 1}` : 'embedding'),
    ...places.map((p) => {
      const [id, probability] = [reading.ids_TK[p][0], reading.probs_TK[p][0]];
      const td = make('td', { title: reading.ids_TK[p].map((other, i) =>
        `${nameOf(other)} ${percent(reading.probs_TK[p][i])}`).join(', ') +
        `; entropy ${fixed(reading.entropy_T[p])} bits; ${fixed(reading.divergence_T[p])} bits from the final prediction; ` +
        `the final choice has rank ${reading.ranks_T[p]} here` }, shown(id), make('br'), percent(probability));
      td.style.backgroundColor = colour('--much', 0.65 * probability);
      if (p === chosen.t - 1) td.style.outline = '2px solid var(--mark)';
      return td;
    })));
  const made = table(head, rows, 'Columns: the place and the token there; cells: what should come next');
  made.className = 'lens';
  const column = chosen.t - 1, last = data.lens.length - 1;
  const details = table([['after'], ['likeliest'], ['probability', true], ['entropy, bits', true],
    ['bits from the end', true], ['rank of the final choice', true]], data.lens.map((reading, l) => make('tr', {},
    cell(l ? `layer ${l - 1}${l === last ? ', the end' : ''}` : 'embedding'), cell(shown(reading.ids_TK[column][0])),
    cell(percent(reading.probs_TK[column][0]), true), cell(fixed(reading.entropy_T[column]), true),
    cell(fixed(reading.divergence_T[column]), true), cell(String(reading.ranks_T[column]), true))));
  $('lens-table').replaceChildren(made, make('details', {},
    make('summary', {}, 'The selected place in numbers'), details));
}

function fillPartChoices() {
  const ids = [...new Set(data.parts.ids[chosen.t - 1])];
  const options = () => ids.map((id) => make('option', { value: String(id) }, nameOf(id)));
  $('part-token').replaceChildren(...options());
  $('part-rival').replaceChildren(make('option', { value: '' }, 'nothing'), ...options());
}

function showParts() {
  const place = chosen.t - 1, ids = data.parts.ids[place], logits = data.parts.unpacked;
  const column = (value) => ids.indexOf(Number(value));
  const token = column($('part-token').value), rival = $('part-rival').value ? column($('part-rival').value) : -1;
  const size = ids.length;
  const of = (p, k) => logits(p, place * size + k);
  const parts = data.parts.names.map((name, p) => [name, of(p, token) - (rival < 0 ? 0 : of(p, rival))]);
  const sum = parts.reduce((total, [, x]) => total + x, 0);
  const sorted = parts.slice().sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const named = sorted.slice(0, 14), rest = sorted.slice(14).reduce((total, [, x]) => total + x, 0);
  const most = Math.max(...named.map(([, x]) => Math.abs(x)));
  const row = (name, x) => make('tr', {}, cell(name), cell(fixed(x), true), cell(bar(x / (most || 1))));
  const rows = named.map(([name, x]) => row(name, x));
  if (sorted.length > 14) rows.push(row(`the other ${sorted.length - 14}`, rest));
  const total = make('tr', { className: 'followed' }, cell('sum'), cell(fixed(sum), true), cell(''));
  $('parts-table').replaceChildren(table([['part'], [rival < 0 ? 'logit' : 'difference', true], ['']], [...rows, total]));
}

// ---- the rest ------------------------------------------------------------------------------

function showMask() {
  const few = Math.min(9, n);
  $('mask-words').textContent = `${few} tokens are ${few - 1} lessons: each row is what may be seen, and what should ` +
    'come next. One pass learns from all of them, because no row sees what comes after it.';
  const rows = range(few - 1).map((t) => make('tr', {}, ...range(few).map((s) => {
    const td = cell(s <= t ? shown(data.tokens[s]) : s === t + 1 ? shown(data.tokens[s]) : '·');
    if (s <= t) td.style.backgroundColor = colour('--much', 0.2);
    if (s === t + 1) td.style.backgroundColor = colour('--less', 0.35);
    return td;
  })));
  $('mask-table').replaceChildren(make('table', {}, make('tbody', {}, ...rows)));
}

function showPositions() {
  const table_ = unpack(data.positions), [, width] = data.positions.shape;
  let most = 1e-9;
  for (let t = 0; t < n; t++) for (let i = 0; i < width; i++) most = Math.max(most, Math.abs(table_(t, i)));
  draw($('positions-picture'), n, width, Math.max(1, Math.floor(400 / Math.max(n, width))), (t, i) => table_(t, i) / most);
}

function showNeighbours() {
  const id = data.tokens[chosen.t - 1], near = data.neighbours[id];
  $('neighbours-words').replaceChildren('In the embedding table, nearest to ', shown(id), ' (cosine): ',
    ...near.flatMap(([other, cosine]) => [shown(other), ` ${fixed(cosine)}  `]));
}

function showSources() {
  const { length, count, followed, start, excerpt } = data.sources[chosen.t - 1];
  $('sources-words').textContent = length === 0 ? 'The training text does not have the token before this one.'
    : `The last ${length} token${length > 1 ? 's' : ''} before this one stand${length > 1 ? '' : 's'} ` +
      `${count.toLocaleString('en')} time${count > 1 ? 's' : ''} in the training text, ` +
      `${followed.toLocaleString('en')} of them with “${nameOf(data.tokens[chosen.t])}” next.` +
      (length === chosen.t ? ' That is the whole context.' : '') + ` The first is at token ${(start).toLocaleString('en')}:`;
  $('sources-excerpt').replaceChildren(...excerpt.flatMap((id) => [shown(id), make('wbr')]));
}

function showAll() {
  showPrediction();
  if (data.attention) {
    showHead();
    showWalk();
    showLens();
    fillPartChoices();
    showParts();
  }
  if (data.neighbours) showNeighbours();
  if (data.sources) showSources();
}

function redraw() {
  for (const button of $('text').querySelectorAll('button')) {
    button.style.backgroundColor = colour('--much', Math.min(0.6, surprise(Number(button.dataset.t)) / 16));
  }
  if (data.attention) showHeads();
  if (data.positions) showPositions();
  showMask();
  showAll();
}

showText();
if (data.attention) {
  chosen.layer = layers.findLastIndex(Boolean);
  data.parts.unpacked = unpack(data.parts.logits);
  showHeadsTable();
  for (const id of ['hide-first', 'weighted']) $(id).addEventListener('change', () => { showHeads(); showHead(); });
  for (const id of ['part-token', 'part-rival']) $(id).addEventListener('change', showParts);
  $('head').addEventListener('mousemove', onHover);
}
document.addEventListener('keydown', onKey);
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redraw);
select(Math.min(n - 1, Math.max(1, data.n_prompt)));
redraw();
