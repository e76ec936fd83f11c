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

// A picture of a packed table, a row for each place.
function showTable(kind, packed) {
  const canvas = $(`${kind}-picture`);
  const { get, rows, width } = packed.get ? packed : { get: unpack(packed), rows: packed.shape[0], width: packed.shape[1] };
  let most = 1e-9;
  for (let t = 0; t < rows; t++) for (let i = 0; i < width; i++) most = Math.max(most, Math.abs(get(t, i)));
  draw(canvas, rows, width, Math.max(1, Math.floor(400 / Math.max(rows, width))), (t, i) => get(t, i) / most);
  const columns = range(Math.min(8, width));
  $(`${kind}-table`).replaceChildren(table([['row'], ...columns.map((i) => [String(i), true])],
    range(Math.min(12, rows)).map((t) => make('tr', {}, cell(String(t)), ...columns.map((i) => cell(fixed(get(t, i), 3), true))))));
}

function showCritic() {
  const { score, without } = data.critic;
  const changes = without.map((other) => other - score), most = Math.max(...changes.map(Math.abs)) || 1;
  const rows = changes.slice(0, n - 1).map((change, i) => make('tr', {}, cell(String(i + 1), true),
    cell(shown(data.tokens[i + 1])), cell(fixed(change, 3), true), cell(bar(change / most))));
  $('critic-table').replaceChildren(table([['place', true], ['word'], ['change', true], ['']], rows));
}

function showNeighbours() {
  const id = data.tokens[chosen.t - 1], near = data.neighbours[id];
  $('neighbours-words').replaceChildren('In the embedding table, nearest to ', shown(id), ' (cosine): ',
    ...near.flatMap(([other, cosine]) => [shown(other), ` ${fixed(cosine)}  `]));
}

function showSources() {
  if (!$('sources') || !data.sources) {
    if ($('sources') && data.layers) {
      $('sources-words').textContent = 'The training text is not in this page.';
      $('sources-excerpt').replaceChildren();
    }
    return;
  }
  const { length, count, followed, start, excerpt } = data.sources[chosen.t - 1];
  $('sources-words').textContent = length === 0 ? 'The training text does not have the token before this one.'
    : `The last ${length} token${length > 1 ? 's' : ''} before this one stand${length > 1 ? '' : 's'} ` +
      `${count.toLocaleString('en')} time${count > 1 ? 's' : ''} in the training text, ` +
      `${followed.toLocaleString('en')} of them with “${nameOf(data.tokens[chosen.t])}” next.` +
      (length === chosen.t ? ' That is the whole context.' : '') + ` The first is at token ${(start).toLocaleString('en')}:`;
  $('sources-excerpt').replaceChildren(...excerpt.flatMap((id) => [shown(id), make('wbr')]));
}

function showCopying() {
  const place = chosen.t - 1, weights = data.copying.weights[place];
  $('copying-words').textContent = `The gate gives ${percent(data.copying.shares[place])} of the probability to the ` +
    'tokens of the source, as the pointer weighs them; the rest is the decoder’s own.';
  const rows = weights.map((weight, s) => [s, weight]).sort((a, b) => b[1] - a[1]).slice(0, 8)
    .map(([s, weight]) => make('tr', {}, cell(String(s), true), cell(shownName(data.source[s])),
      cell(fixed(weight, 3), true), cell(bar(weight))));
  $('copying-table').replaceChildren(table([['place', true], ['source token'], ['weight', true], ['']], rows));
}

function showAll() {
  showPrediction();
  if (data.attention) {
    showHead();
    showWalk();
  }
  if (data.lens) showLens();
  if (data.parts) {
    fillPartChoices();
    showParts();
  }
  if (data.copying) showCopying();
  if (data.neighbours) showNeighbours();
  showSources();
  if ($('across')) showAcross();
}

function redraw() {
  for (const button of $('text').querySelectorAll('button')) {
    button.style.backgroundColor = colour('--much', Math.min(0.6, surprise(Number(button.dataset.t)) / 16));
  }
  if (data.attention) showHeads();
  if (data.positions) showTable('positions', data.positions);
  if (data.critic) {
    showCritic();
    showTable('style', data.style);
  }
  showMask();
  showAll();
}
