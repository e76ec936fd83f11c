// ---- attention -----------------------------------------------------------------------------

const namesOf = { tokens: data.tokens.map((id) => nameOf(id)), source: data.source };

// The kinds of attention, with the weights of each layer as functions of (head, query, key); null
// stands for a layer that is not in the page.
const kinds = (data.attention || []).map((kind) => ({
  name: kind.name,
  own: kind.rows === 'tokens',  // Its queries belong to the text that is predicted.
  queryNames: namesOf[kind.rows],
  keyNames: namesOf[kind.columns],
  causal: kind.rows === 'tokens' && kind.columns === 'tokens',
  layers: kind.layers.map((layer) => layer && {
    weights: unpack(layer.weights), norms: unpack(layer.value_norms), heads: layer.weights.shape[0],
    queries: layer.queries && unpack(layer.queries), keys: layer.queries && unpack(layer.keys),
    values: layer.queries && unpack(layer.values), width: layer.queries && layer.queries.shape[2],
  }),
}));

const kindOf = () => kinds[chosen.kind];
const queryOf = () => kindOf().own ? chosen.t - 1 : chosen.s;
const keysOf = (query) => kindOf().causal ? query + 1 : kindOf().keyNames.length;
const shownName = (name) => make('span', { className: 'shown' }, name);

// The weight of a head from a query to a key, as the two switches say.
function weightOf(layer, head) {
  const { weights, norms } = kindOf().layers[layer];
  const hide = $('hide-first').checked, weighted = $('weighted').checked;
  let scale = 1;
  if (weighted) {
    let most = 0;
    kindOf().queryNames.forEach((_, t) => {
      for (let s = hide ? 1 : 0; s < keysOf(t); s++) most = Math.max(most, weights(head, t, s) * norms(head, s));
    });
    scale = 1 / (most || 1);
  }
  return (t, s) => hide && s === 0 ? 0 : weights(head, t, s) * (weighted ? norms(head, s) * scale : 1);
}

// What is known of a head; only heads of the first kind were examined.
function about(layer, head) {
  if (!data.heads || chosen.kind !== 0) return { label: '', words: '' };
  const { scores, labels, loss, loss_increase: increase } = data.heads;
  const does = labels ? labels[layer][head] : '', change = increase && increase[layer][head];
  const looks = scores ? `On random tokens that come twice it looks with ${percent(scores.previous[layer][head])} ` +
    `at the token before, ${percent(scores.duplicate[layer][head])} at the same token, ` +
    `${percent(scores.induction[layer][head])} at what followed it. ` : '';
  return { label: does, words: looks + (increase ? `The loss of this text is ${fixed(loss, 3)} nats a token; without ` +
    `this head it is ${fixed(Math.abs(change), 4)} ${change < 0 ? 'lower' : 'higher'}.` : '') };
}

function choose(layer, head) {
  Object.assign(chosen, { layer, head });
  showHeads();
  showHead();
  showWalk();
}

function showHeads() {
  const { layers, queryNames, keyNames } = kindOf();
  const most = Math.max(...layers.map((layer) => layer ? layer.heads : 0));
  $('heads').style.gridTemplateColumns = `repeat(${most}, minmax(1.2rem, 1fr))`;
  $('heads').replaceChildren(...layers.flatMap((layer, l) => layer ? range(layer.heads).map((h) => {
    const canvas = make('canvas'), does = about(l, h).label;
    draw(canvas, queryNames.length, keyNames.length, 1, weightOf(l, h));
    const name = `layer ${l}, head ${h}${does ? ': ' + does : ''}`;
    const button = make('button', { type: 'button', title: name, 'aria-label': name,
      'aria-pressed': String(l === chosen.layer && h === chosen.head) }, canvas);
    button.addEventListener('click', () => choose(l, h));
    return button;
  }) : []));
}

function showHead() {
  const { layer, head } = chosen, { queryNames, keyNames, own } = kindOf();
  const weight = weightOf(layer, head), query = queryOf();
  const [rows, columns] = [queryNames.length, keyNames.length];
  const scale = Math.max(2, Math.floor(420 / Math.max(rows, columns)));
  draw($('head'), rows, columns, scale, weight);
  const context = $('head').getContext('2d');
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue('--mark');
  context.strokeRect(0.5, query * scale + 0.5, columns * scale - 1, scale - 1);
  $('head').setAttribute('aria-label', `${kindOf().name} of layer ${layer}, head ${head}`);
  const { label, words } = about(layer, head);
  $('head-words').textContent = `Layer ${layer}, head ${head}` + (label ? `: ${label} head. ` : '. ') + words;
  const largest = (pairs) => pairs.sort((a, b) => b[2] - a[2]).slice(0, 10);
  const looks = largest(range(keysOf(query)).map((s) => [s, keyNames[s], weight(query, s)]));
  // Who looks at this token: only where keys and queries are of the same text.
  const seen = keyNames !== queryNames ? [] : largest(range(rows).filter((t) => query < keysOf(t))
    .map((t) => [t, queryNames[t], weight(t, query)]));
  const cells = (found) => found
    ? [cell(String(found[0]), true), cell(shownName(found[1])), cell(fixed(found[2], 3), true)]
    : [cell(''), cell(''), cell('')];
  const table_rows = range(Math.max(looks.length, seen.length)).map((i) =>
    make('tr', {}, ...cells(looks[i]), ...cells(seen[i])));
  const predicts = own ? `, which predicts “${nameOf(data.tokens[chosen.t])}”` : ' of the source';
  $('head-table').replaceChildren(table(
    [['place', true], ['it looks at'], ['weight', true], ['place', true], ['looks at it'], ['weight', true]],
    table_rows, `Token ${query}, “${queryNames[query]}”${predicts}`));
}

function onHover(event) {
  const { queryNames, keyNames } = kindOf(), box = $('head').getBoundingClientRect();
  const at = (x, from, size, count) => Math.min(count - 1, Math.max(0, Math.floor((x - from) / size * count)));
  const t = at(event.clientY, box.top, box.height, queryNames.length);
  const s = at(event.clientX, box.left, box.width, keyNames.length);
  $('head-hover').textContent = s >= keysOf(t) ? `token ${t} must not look at token ${s}, which comes later`
    : `token ${t} “${queryNames[t]}” looks at token ${s} “${keyNames[s]}”: ` +
      fixed(weightOf(chosen.layer, chosen.head)(t, s), 3);
}

// Under the tokens, what token t looks at in the chosen head; above them, what looks at it.
function showLinks(t) {
  if (!data.attention || !kindOf().causal) return;
  const weight = weightOf(chosen.layer, chosen.head);
  for (const button of $('text').querySelectorAll('button')) {
    const s = Number(button.dataset.t);
    const below = `inset 0 -4px ${colour('--much', t < 0 || s > t ? 0 : weight(t, s))}`;
    const above = `inset 0 4px ${colour('--less', t < 0 || s <= t ? 0 : weight(s, t))}`;
    button.style.boxShadow = `${below}, ${above}`;
  }
}

function showHeadsTable() {
  const { scores, labels, loss_increase: increase } = data.heads;
  if (!increase) return $('heads-table').replaceChildren('Leaving out each head would take long in a browser.');
  const rows = increase.flatMap((layer, l) => layer.map((change, h) => make('tr', {},
    cell(`${l}.${h}`), cell(labels ? labels[l][h] : ''),
    ...(scores ? ['previous', 'duplicate', 'induction'].map((kind) => cell(fixed(scores[kind][l][h]), true)) : []),
    cell(fixed(change, 4), true))));
  const named = scores ? [['token before', true], ['same token', true], ['induction', true]] : [];
  $('heads-table').replaceChildren(
    table([['head'], ['label'], ...named, ['loss without it', true]], rows));
}

// ---- one head in numbers -------------------------------------------------------------------

function vector(get, head, t, width, most = 6) {
  const numbers = range(Math.min(width, most)).map((i) => fixed(get(head, t, i)));
  return `[${numbers.join(', ')}${width > most ? ', …' : ''}]`;
}

function showWalk() {
  const { layer, head } = chosen, query = queryOf(), { queryNames, keyNames, layers, causal } = kindOf();
  const { queries, keys, values, width, weights } = layers[layer];
  if (!queries) {
    $('walk-words').textContent = `The numbers of layer ${layer} are not in this page, to keep it small.`;
    for (const id of ['walk-table', 'walk-output', 'walk-proof']) $(id).replaceChildren();
    return;
  }
  $('walk-words').textContent = `Layer ${layer}, head ${head}, token ${query} “${queryNames[query]}”. ` +
    `Its query is ${vector(queries, head, query, width)}, ${width} numbers. Each score is the query times a key, ` +
    `over √${width} = ${fixed(Math.sqrt(width))}; ${causal ? 'later tokens are masked; ' : ''}the softmax makes ` +
    'weights of the scores.';
  const count = keysOf(query);
  const scores = range(count).map((s) =>
    range(width).reduce((sum, i) => sum + queries(head, query, i) * keys(head, s, i), 0));
  const scaled = scores.map((score) => score / Math.sqrt(width)), most = Math.max(...scaled);
  const total = scaled.reduce((sum, x) => sum + Math.exp(x - most), 0);
  const softmax = scaled.map((x) => Math.exp(x - most) / total);
  const order = range(count).sort((a, b) => softmax[b] - softmax[a]).slice(0, 12).sort((a, b) => a - b);
  const rows = order.map((s) => make('tr', {}, cell(String(s), true), cell(shownName(keyNames[s])),
    cell(vector(keys, head, s, width, 2)), cell(fixed(scores[s]), true), cell(fixed(scaled[s]), true),
    cell(fixed(softmax[s], 4), true), cell(bar(softmax[s])), cell(vector(values, head, s, width, 2))));
  if (count < keyNames.length) rows.push(make('tr', { className: 'masked' }, cell(String(count), true),
    cell('later tokens'), cell(''), cell(''), cell('−∞', true), cell('0', true), cell('masked'), cell('')));
  $('walk-table').replaceChildren(table([['place', true], ['token'], ['key'], ['query × key', true],
    ['scaled', true], ['weight', true], [''], ['value']], rows,
    count > order.length ? `The ${order.length} largest weights of ${count}` : ''));
  const output = (head_, _, i) => softmax.reduce((sum, w, s) => sum + w * values(head, s, i), 0);
  $('walk-output').textContent = `The output is the sum of weight × value: ${vector(output, head, 0, width)}.`;
  const error = Math.max(...softmax.map((w, s) => Math.abs(w - weights(head, query, s))));
  $('walk-proof').textContent = 'Computed in this page from queries and keys in half precision; the weights differ ' +
    `from the model’s, which the page has in steps of 1/255, by at most ${fixed(error, 4)}.`;
}

function startHeads() {
  $('kind').replaceChildren(...kinds.map((kind, i) => make('option', { value: String(i) }, kind.name)));
  $('kind').parentElement.hidden = kinds.length < 2;
  const pick = (kind) => {
    chosen.kind = kind;
    choose(kinds[kind].layers.findLastIndex(Boolean), 0);
  };
  $('kind').addEventListener('change', () => pick(Number($('kind').value)));
  for (const id of ['hide-first', 'weighted']) {
    $(id).addEventListener('change', () => { showHeads(); showHead(); });
  }
  $('head').addEventListener('mousemove', onHover);
  chosen.layer = kinds[0].layers.findLastIndex(Boolean);
}
