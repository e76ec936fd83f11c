// ---- a text of the reader's own --------------------------------------------------------------

const LISTED = 10, LENS_LISTED = 3, NEAR = 6;  // as in predictions.py, lens.py and embeddings.py
const MOST_WORK = 4e9;  // multiplications, some seconds

const softmaxOf = (logits) => {
  const most = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = logits.map((x) => Math.exp(x - most)), total = sumOf(powers);
  return powers.map((power) => power / total);
};
const entropyOf = (probs) => -sumOf(probs, (p) => p > 0 ? p * Math.log2(p) : 0);
const bestOf = (values, count) => range(values.length).sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
const rankOf = (probs, id) => 1 + probs.reduce((count, p) => count + (p > probs[id]), 0);

// The ids of a text, or a sentence about what is wrong with it.
function encode(text) {
  const how = live.tokenizer;
  if (how.nfkc) text = text.normalize('NFKC');
  text = [...text].map((c) => how.replace[c] ?? c).join('');
  if (how.nfkc) text = text.normalize('NFKC');
  if (how.lowercase) text = text.toLowerCase();
  if (how.kind === 'byte') return { ids: [...new TextEncoder().encode(text)] };
  if (how.kind === 'bpe') return { ids: mergePieces(text) };
  const known = new Map([...how.characters].map((c, id) => [c, id]));
  const missing = [...text].find((c) => !known.has(c));
  if (missing) return { wrong: `The vocabulary lacks “${missing}”.` };
  return { ids: [...text].map((c) => known.get(c)) };
}

// Byte-level BPE (gptjax/text/bpe.py): GPT-2's split, then the merges in the order they were learnt.
function mergePieces(text) {
  const { vocab, merges } = live.tokenizer, order = new Map(merges.map((pair, i) => [pair, i]));
  const seen = [...range(256)].filter((b) => (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173);
  const character = new Map(seen.map((b) => [b, String.fromCodePoint(b)]));
  range(256).filter((b) => !character.has(b)).forEach((b, i) => character.set(b, String.fromCodePoint(256 + i)));
  const words = text.match(/'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu) || [];
  return words.flatMap((word) => {
    const pieces = [...new TextEncoder().encode(word)].map((b) => character.get(b));
    for (;;) {
      const ranks = pieces.slice(1).map((piece, i) => order.get(`${pieces[i]} ${piece}`) ?? Infinity);
      const best = ranks.reduce((a, b) => Math.min(a, b), Infinity);
      if (best === Infinity) break;
      const at = ranks.indexOf(best);
      pieces.splice(at, 2, pieces[at] + pieces[at + 1]);
    }
    return pieces.map((piece) => vocab[piece]);
  });
}

// The logits after each sampling rule, by its name (generation/rules.py).
function afterRules(logits, seen) {
  const { temperature, top_k: k, top_p: p, min_p: least, repetition_penalty: penalty } = data.rules;
  let x = logits.map((a, id) => !seen.has(id) ? a : a > 0 ? a / penalty : a * penalty);
  const most = x.reduce((a, b) => Math.max(a, b), -Infinity);
  x = x.map((a) => (a - most) / (temperature || 1));
  const stages = [['repetition_penalty', x]];
  const keep = (name, kept) => stages.push([name, stages.at(-1)[1].map((a, id) => kept(id, a) ? a : -Infinity)]);
  if (k) {
    const best = new Set(bestOf(x, k));
    keep('top_k', (id) => best.has(id));
  }
  if (p < 1) {
    const now = stages.at(-1)[1], probs = softmaxOf(now), kept = new Set();
    let before = 0;
    for (const id of bestOf(now, now.length)) {
      if (kept.size === 0 || before < p) kept.add(id);
      before += probs[id];
    }
    keep('top_p', (id) => kept.has(id));
  }
  if (least) keep('min_p', (id, a) => a >= Math.min(0, Math.log(least)));
  if (!temperature) {
    const [best] = bestOf(stages.at(-1)[1], 1);
    keep('temperature=0', (id) => id === best);
  }
  return stages;
}

function predict(logits, ids) {
  const predictions = [], outcomes = [];
  logits.forEach((row, t) => {
    const stages = afterRules(row, new Set(ids.slice(0, t + 1)));
    const probs = softmaxOf(row), sampled = softmaxOf(stages.at(-1)[1]), removed = {}, by = {};
    for (const [rule, x] of stages) x.forEach((a, id) => {
      if (a === -Infinity && !by[id]) {
        by[id] = rule;
        removed[rule] = (removed[rule] || 0) + probs[id];
      }
    });
    const best = bestOf(probs, LISTED);
    predictions.push({ ids: best, probabilities: best.map((id) => probs[id]), sampled: best.map((id) => sampled[id]),
      removed_by: best.map((id) => by[id] || ''), removed, total: sumOf(probs), entropy: entropyOf(probs) });
    const next = ids[t + 1];
    if (next !== undefined) outcomes.push({ id: next, probability: probs[next], rank: rankOf(probs, next), sampled: sampled[next] });
  });
  return { predictions, outcomes };
}

function readLens(streams, logits) {
  const final = logits.map(softmaxOf), best = final.map((probs) => bestOf(probs, 1)[0]);
  return streams.map((stream) => {
    const probs = stream.map((row) => softmaxOf(readOut(row))), ids = probs.map((row) => bestOf(row, LENS_LISTED));
    return {
      ids_TK: ids, probs_TK: ids.map((row, t) => row.map((id) => probs[t][id])),
      entropy_T: probs.map(entropyOf), ranks_T: probs.map((row, t) => rankOf(row, best[t])),
      divergence_T: final.map((row, t) => Math.max(0, row.reduce((sum, p, id) =>
        p > 0 ? sum + p * Math.log2(p / Math.max(probs[t][id], 1e-300)) : sum, 0))),
    };
  });
}

function partsOf(parts, logits, ids) {
  const names = [...Object.keys(parts).filter((name) => name !== 'bias'), 'bias'];
  const best = logits.map((row) => bestOf(row, LISTED)), followed = [...ids.slice(1), best.at(-1)[0]];
  const listed = best.map((row, t) => [followed[t], ...row]), size = LISTED + 1, bias = weights['head/bias'];
  const numbers = names.map((name) => listed.flatMap((row, t) => row.map((id) =>
    headRow(id).reduce((sum, w, i) => sum + w * parts[name][t][i], name === 'bias' && bias ? bias.data[id] : 0))));
  return { names, ids: listed.map((row) => row.slice(0, size)), unpacked: (p, j) => numbers[p][j] };
}

function nearest(ids) {
  const rows = live.names.map((_, id) => tableRow('embed/embedding', id));
  const length = (row) => Math.max(1e-12, Math.sqrt(sumOf(row, (a) => a * a))), lengths = rows.map(length);
  return Object.fromEntries([...new Set(ids)].map((id) => {
    const cosines = rows.map((row, other) => other === id ? -Infinity
      : row.reduce((sum, a, i) => sum + a * rows[id][i], 0) / lengths[other] / lengths[id]);
    return [id, bestOf(cosines, Math.min(NEAR, cosines.length - 1)).map((other) => [other, cosines[other]])];
  }));
}

// The loss without each head; null if that would take long.
function lossesWithout(ids) {
  const { n_layer: layers, n_head: heads, n_embd: width } = live.config;
  const work = ids.length * (12 * layers * width ** 2 + width * live.names.length) * layers * heads;
  if (work > MOST_WORK) return null;
  const loss = (without) => {
    const { logits } = forward(ids.slice(0, -1), { without });
    return sumOf(logits.map((row, t) => -Math.log(softmaxOf(row)[ids[t + 1]]))) / logits.length;
  };
  const whole = loss([]);
  return { loss: whole, loss_increase: range(layers).map((l) => range(heads).map((h) => loss([l, h]) - whole)) };
}

// Everything that explain/views.py gives, of other tokens; functions stand for packed arrays.
function explainOwn(ids, nPrompt) {
  loadWeights();
  const found = forward(ids, { parts: true }), { position, n_embd: width, n_head: count } = live.config;
  const layers = found.heads.map((layer) => ({
    weights: (h, t, s) => layer[h].weights[t][s] ?? 0, norms: (h, s) => layer[h].norms[s], heads: layer.length,
    queries: (h, t, i) => layer[h].queries[t][i], keys: (h, t, i) => layer[h].keys[t][i],
    values: (h, t, i) => layer[h].values[t][i], width: layer[0].width,
  }));
  const angles = position === 'rotary' ? width / count : width;
  const rows = position === 'none' ? null
    : ids.map((_, t) => position === 'learned' ? tableRow('embed_pos/embedding', t) : sinusoid(t, angles));
  return {
    tokens: ids, n_prompt: nPrompt, ...predict(found.logits, ids), lens: readLens(found.streams, found.logits),
    parts: partsOf(found.parts, found.logits, ids), neighbours: nearest(ids), sources: null, across: null,
    heads: { ...data.heads, ...(lossesWithout(ids) || { loss: null, loss_increase: null }) },
    positions: rows && { rows: rows.length, width: rows[0].length, get: (t, i) => rows[t][i] },
    layers,
  };
}

// How far this page's own probabilities are from those of the model, on the text that came with it.
function ownError() {
  const { logits } = forward(data.tokens);
  return Math.max(...data.predictions.map(({ ids, probabilities }, t) => {
    const probs = softmaxOf(logits[t]);
    return Math.max(...ids.map((id, i) => Math.abs(probs[id] - probabilities[i])));
  }));
}

let ownDifference = null;  // measured once, before the first text of the reader's takes over

function onOwn() {
  const say = (words) => { $('own-words').textContent = words; };
  const { ids, wrong } = encode($('own-text').value), most = live.config.block_size;
  if (wrong) return say(wrong);
  if (ids.length < 2) return say('Two tokens are the least that can be explained.');
  if (ids.length > most) return say(`The text has ${ids.length} tokens, and the model takes ${most} at most.`);
  const { n_layer: layers, n_embd: width } = live.config;
  const work = ids.length * (12 * layers * width ** 2 + (layers + 2) * width * live.names.length);
  if (work > MOST_WORK) return say('A text of this length would take long in a browser; try a shorter one.');
  if (ownDifference === null) {
    loadWeights();
    ownDifference = ownError();
  }
  Object.assign(data, explainOwn(ids, 1), { direction: getComputedStyle($('own-text')).direction });
  data.names = live.names;
  n = ids.length;
  kinds[0] = { ...kinds[0], layers: data.layers, queryNames: ids.map(nameOf), keyNames: ids.map(nameOf) };
  startText();
  // These were measured on the text that came with the page.
  for (const proof of document.querySelectorAll('.proof:not(#own-proof):not(#walk-proof)')) proof.hidden = true;
  const loss = sumOf(data.outcomes.map(({ probability }) => -Math.log(probability))) / data.outcomes.length;
  const about = `${n} tokens; their loss is ${fixed(loss, 4)} nats a token.`;
  $('summary').textContent = `A text of your own: ${about}`;
  say(`${about} All views are of this text now.`);
  $('own-proof').textContent = 'Computed in this page with weights in half precision: on the text that came with it, ' +
    `no probability shown differs from the model’s by more than ${ownDifference.toExponential(0)}.`;
}
