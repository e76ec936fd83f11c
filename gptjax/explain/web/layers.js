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
