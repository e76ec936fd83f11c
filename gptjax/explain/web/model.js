// ---- the model: what gptjax/models/decoder.py computes ---------------------------------------
// A matrix over positions is an array of Float64Arrays, one for each position.

const live = data.live;
const weights = {};  // name -> { shape, data: Float32Array }, filled at the first use

function loadWeights() {
  if (!live || weights['embed/embedding']) return;
  const numbers = Float32Array.from({ length: 1 << 16 }, (_, half) => halfToNumber(half));
  for (const [name, packed] of Object.entries(live.weights)) {
    const halves = new Uint16Array(bytesOf(packed.data).buffer);
    weights[name] = { shape: packed.shape, data: Float32Array.from(halves, (half) => numbers[half]) };
  }
}

// x @ w + bias; w has its inputs first, however many axes there are.
function linear(x, path, inputs) {
  const w = weights[`${path}/kernel`].data, bias = weights[`${path}/bias`], outputs = w.length / inputs;
  return x.map((row) => {
    const y = bias ? Float64Array.from(bias.data) : new Float64Array(outputs);
    for (let i = 0; i < inputs; i++) {
      const factor = row[i], start = i * outputs;
      if (factor) for (let o = 0; o < outputs; o++) y[o] += factor * w[start + o];
    }
    return y;
  });
}

const sumOf = (row, value = (x) => x) => row.reduce((sum, x) => sum + value(x), 0);
const addRows = (a, b) => a.map((row, t) => row.map((x, i) => x + b[t][i]));

// The factor and the centre of a norm for each row: it is linear once these are known.
function normScales(x) {
  return x.map((row) => {
    const mean = live.config.norm === 'layer' ? sumOf(row) / row.length : 0;
    const epsilon = live.config.norm === 'layer' ? 1e-5 : 1e-6;
    return 1 / Math.sqrt(sumOf(row, (a) => (a - mean) ** 2) / row.length + epsilon);
  });
}

// A part of what is normalised, with the factors of the whole.
function normPart(part, factors, path) {
  const scale = weights[`${path}/scale`].data, centred = live.config.norm === 'layer';
  return part.map((row, t) => {
    const mean = centred ? sumOf(row) / row.length : 0;
    return row.map((a, i) => (a - mean) * factors[t] * scale[i]);
  });
}

function norm(x, path) {
  const bias = weights[`${path}/bias`], y = normPart(x, normScales(x), path);
  return bias ? y.map((row) => row.map((a, i) => a + bias.data[i])) : y;
}

// erf by Abramowitz and Stegun's 7.1.26, to 1.5e-7.
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - poly * Math.exp(-x * x));
}

const ACTIVATIONS = {
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu_exact: (x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)),
  relu: (x) => Math.max(0, x),
  relu2: (x) => Math.max(0, x) ** 2,
};

function sinusoid(position, width) {
  return Float64Array.from({ length: width }, (_, i) => {
    const angle = position * 10000 ** (-(i - i % 2) / width);
    return i % 2 ? Math.cos(angle) : Math.sin(angle);
  });
}

// The row of an n-gram table that a hash of the last tokens chooses (gptjax/models/ngram.py).
function ngramRow(tokens, rows) {
  let hash = 0;
  for (const token of tokens) {
    hash = Math.imul((hash + token + 1) >>> 0, 0x9E3779B1);
    hash = (hash ^ (hash >>> 15)) >>> 0;
  }
  return hash % rows;
}

function tableRow(name, row) {
  const { shape: [, width], data: numbers } = weights[name];
  return Float64Array.from(numbers.subarray(row * width, (row + 1) * width));
}

// The parts of the residual stream before the first block, by name.
function embed(ids) {
  const { ngram, ngram_rows: rows, n_embd: width, position } = live.config;
  const parts = { embed: ids.map((id) => tableRow('embed/embedding', id)) };
  for (let length = 2; length <= ngram; length++) {
    const runs = ids.map((_, t) => range(length).map((i) => ids[t - length + 1 + i] ?? -1));
    parts[`embed_ngrams/last_${length}`] =
      runs.map((run) => tableRow(`embed_ngrams/last_${length}/embedding`, ngramRow(run, rows)));
  }
  if (live.config.scale_embedding) {
    for (const x of Object.values(parts)) for (const row of x) row.forEach((a, i) => { row[i] = a * Math.sqrt(width); });
  }
  if (position === 'learned') parts.embed_pos = ids.map((_, t) => tableRow('embed_pos/embedding', t));
  if (position === 'sinusoidal') parts.embed_pos = ids.map((_, t) => sinusoid(t, width));
  return parts;
}

// A head's part of projected rows, normalised and turned as the model wants it.
function headRows(x, head, width, turned) {
  const { qk_norm: normalised, position } = live.config, half = width / 2;
  return x.map((row, t) => {
    const part = row.slice(head * width, (head + 1) * width);
    if (!turned) return part;
    const factor = normalised ? 1 / Math.sqrt(sumOf(part, (a) => a * a) / width + 1e-6) : 1;
    const y = part.map((a) => a * factor);
    if (position !== 'rotary') return y;
    return y.map((a, i) => {
      const angle = t * 10000 ** (-(i % half) / half), other = y[(i + half) % width];
      return a * Math.cos(angle) + (i < half ? -1 : 1) * other * Math.sin(angle);
    });
  });
}

// The heads of a layer: queries, keys, values, weights, and what each adds to the stream.
function attend(x, block) {
  const { n_head: heads, n_embd: D } = live.config, width = D / heads, path = `${block}/attn`;
  const [q, k, v] = ['query', 'key', 'value'].map((name) => linear(x, `${path}/${name}`, D));
  const out = weights[`${path}/out/kernel`].data;
  return range(heads).map((h) => {
    const queries = headRows(q, h, width, true), keys = headRows(k, h, width, true), values = headRows(v, h, width, false);
    const share = queries.map((query, t) => {
      const scores = range(t + 1).map((s) => query.reduce((sum, a, i) => sum + a * keys[s][i], 0) / Math.sqrt(width));
      const most = Math.max(...scores), powers = scores.map((score) => Math.exp(score - most)), total = sumOf(powers);
      return powers.map((power) => power / total);
    });
    const written = values.map((value) => {
      const y = new Float64Array(D);
      for (let i = 0; i < width; i++) {
        const start = (h * width + i) * D;
        for (let o = 0; o < D; o++) y[o] += value[i] * out[start + o];
      }
      return y;
    });
    const added = share.map((row) => {
      const y = new Float64Array(D);
      row.forEach((weight, s) => written[s].forEach((a, o) => { y[o] += weight * a; }));
      return y;
    });
    const norms = written.map((row) => Math.sqrt(sumOf(row, (a) => a * a)));
    return { queries, keys, values, weights: share, norms, added, width };
  });
}

// Runs the model. `without` is [layer, head] of a head to leave out. With `parts`, what reaches the
// output head is also given as a sum of parts, by name.
function forward(ids, { without = [], parts: wanted = false } = {}) {
  const { n_layer: layers, n_embd: D, norm_place: place } = live.config;
  const zero = () => ids.map(() => new Float64Array(D));
  let parts = embed(ids);
  let x = Object.values(parts).reduce(addRows);
  parts.bias = zero();
  const streams = [x], heads = [];

  function add(branch, path) {
    let sum = Object.values(branch).reduce(addRows);
    if (place === 'branch') {
      const bias = weights[`${path}/bias`], factors = normScales(sum);
      for (const name of Object.keys(branch)) branch[name] = normPart(branch[name], factors, path);
      if (bias) branch.bias = addRows(branch.bias || zero(), ids.map(() => Float64Array.from(bias.data)));
      sum = Object.values(branch).reduce(addRows);
    }
    x = addRows(x, sum);
    for (const [name, y] of Object.entries(branch)) if (wanted) parts[name] = parts[name] ? addRows(parts[name], y) : y;
    if (place === 'after') normAll(path);
  }

  function normAll(path) {
    const bias = weights[`${path}/bias`], factors = normScales(x);
    if (wanted) for (const name of Object.keys(parts)) parts[name] = normPart(parts[name], factors, path);
    if (wanted && bias) parts.bias = addRows(parts.bias, ids.map(() => Float64Array.from(bias.data)));
    x = norm(x, path);
  }

  for (const l of range(layers)) {
    const block = `block_${l}`, first = place === 'before' ? norm(x, `${block}/norm_attn`) : x;
    const found = attend(first, block), branch = {}, bias = weights[`${block}/attn/out/bias`];
    found.forEach((head, h) => {
      branch[`${block}/head_${h}`] = without[0] === l && without[1] === h ? zero() : head.added;
    });
    if (bias) branch.bias = ids.map(() => Float64Array.from(bias.data));
    heads.push(found);
    add(branch, `${block}/norm_attn`);
    const second = place === 'before' ? norm(x, `${block}/norm_mlp`) : x;
    const hidden = linear(second, `${block}/mlp/up`, D).map((row) => row.map(ACTIVATIONS[live.config.activation]));
    add({ [`${block}/mlp`]: linear(hidden, `${block}/mlp/down`, hidden[0].length) }, `${block}/norm_mlp`);
    streams.push(x);
  }
  if (place !== 'after' && wanted) {
    const stream = x;
    normAll('norm_final');
    x = stream;
  }
  return { logits: x.map(readOut), streams, heads, parts };
}

// The logits of one row of the residual stream.
function readOut(row) {
  const [x] = live.config.norm_place === 'after' ? [row] : norm([row], 'norm_final');
  if (!live.config.tied_head) return linear([x], 'head', x.length)[0];
  return Float64Array.from({ length: live.names.length }, (_, id) => headRow(id).reduce((sum, w, i) => sum + w * x[i], 0));
}

// What the output head multiplies with for a token.
function headRow(id) {
  const { shape: [a, b], data: numbers } = weights[live.config.tied_head ? 'embed/embedding' : 'head/kernel'];
  return live.config.tied_head ? numbers.subarray(id * b, (id + 1) * b)
    : Float32Array.from({ length: a }, (_, i) => numbers[i * b + id]);
}
