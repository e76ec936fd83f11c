#!/usr/bin/env bash
# On a rented machine with an NVIDIA GPU: everything that needs one, in stages of under 9 minutes.
#
#   scripts/gpu_check.sh [FOLDER [STAGE...]]      default: runs/gpu_check and all stages, in this order:
#
#   correctness  losses and gradients against the CPU, by each implementation
#   choices      which kernels the compiled train step calls, and what each default gains
#   throughput   GPT-2 124M against PyTorch, eager and compiled, with flash attention; its decoding
#   decoding     the character model of nanoGPT's size against PyTorch, at batch 1 and 64
#   baby         trains configs/char.py:baby from process start to its loss
#
# Each stage leaves FOLDER/STAGE.json, and is skipped where that is there: a run that was cut short goes on. One that
# fails leaves STAGE.log and costs no other. FOLDER/gpu_check.json has all of them.
#
# Needs pip install -e '.[cuda12,torch]' (or cuda13). GPTJAX_PLATFORM=cpu tries the script itself without a GPU,
# with tiny models. GPTJAX_DATA=FILE is tiny Shakespeare where nothing can be fetched.
set -uo pipefail
[[ $0 == /* ]] || exec "$BASH" "$PWD/$0" "$@" # It calls itself from another folder.
cd "$(dirname "$0")/.."
out=${1:-runs/gpu_check}
stages=("${@:2}")
[[ ${#stages[@]} -gt 0 ]] || stages=(correctness choices throughput decoding baby)
mkdir -p "$out"
python=${PYTHON:-python}
platform=${GPTJAX_PLATFORM:-cuda}
both=$platform
[[ $platform == cpu ]] || both=$platform,cpu
export JAX_PLATFORMS=$platform
options=()
[[ -z "${GPTJAX_DATA:-}" ]] || options+=("--config.data.path=$GPTJAX_DATA")
steps=()
if [[ $platform == cpu ]]; then
  options+=(--config.model.n_layer=1 --config.model.n_head=2 --config.model.n_embd=32
    --config.model.block_size=32 --config.train.batch_size=4 --config.bench.rounds=2
    --config.bench.turn_s=0.05 --config.bench.torch_compile=False --config.bench.batch_size=4
    --config.sample.max_new_tokens=40)
  steps=(--config.train.steps=20)
fi

bench() { # STAGE CONFIG [FLAG...]
  "$python" main.py --config="$2" --mode=bench --workdir="$out/bench_$1" "${@:3}" "${options[@]}" &&
    cp "$out/bench_$1/bench.json" "$out/$1.json"
}

correctness() { JAX_PLATFORMS=$both "$python" scripts/gpu_parity.py > "$out/correctness.part"; }

choices() { # Writes its JSON itself, after each comparison.
  "$python" scripts/gpu_choices.py --config=configs/gpt2.py:124m --workdir="$out" \
    --config.train.batch_size=16 --config.bench.rounds=5 --config.bench.turn_s=1 "${options[@]}"
}

throughput() { bench throughput configs/gpt2.py:124m --config.train.batch_size=16 --config.bench.rounds=5; }

decoding() { bench decoding configs/char.py:baby --config.bench.rounds=5; }

baby() {
  local run=(--config=configs/char.py:baby --workdir="$out/train_baby" "${options[@]}")
  rm -rf "$out/train_baby"
  "$python" main.py "${run[@]}" --mode=train "${steps[@]}" &&
    "$python" main.py "${run[@]}" --mode=eval --json > "$out/baby.part"
}

if [[ ${stages[0]} == --run ]]; then # This script, called by itself.
  "${stages[1]}"
  exit
fi
failed=()
for stage in "${stages[@]}"; do
  if [[ ! " correctness choices throughput decoding baby " == *" $stage "* ]]; then
    echo "$stage is no stage; stages are correctness choices throughput decoding baby" >&2
    exit 2
  fi
  if [[ -e $out/$stage.json && $stage != choices ]]; then
    echo "== $stage: $out/$stage.json is there already"
    continue
  fi
  echo "== $stage"
  began=$SECONDS
  if timeout 530 "$BASH" "$0" "$out" --run "$stage" > "$out/$stage.log" 2>&1; then
    [[ ! -e $out/$stage.part ]] || mv "$out/$stage.part" "$out/$stage.json"
    echo "   $((SECONDS - began)) s"
  else
    echo "   failed after $((SECONDS - began)) s: $(tail -n 1 "$out/$stage.log")" >&2
    failed+=("$stage")
  fi
done

"$python" - "$out" << 'END'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
names = ('correctness', 'choices', 'throughput', 'decoding', 'baby')
result = {n: json.loads((out / f'{n}.json').read_text()) for n in names if (out / f'{n}.json').exists()}
rows = out / 'train_baby' / 'metrics.jsonl'
if rows.exists():  # Loss against the seconds since training began.
    result['baby_rows'] = [json.loads(line) for line in rows.read_text().splitlines() if 'val_loss' in line]
(out / 'gpu_check.json').write_text(json.dumps(result, indent=1) + '\n')
print(f'Written: {out / "gpu_check.json"}')
END
[[ ${#failed[@]} -eq 0 ]] || { echo "failed: ${failed[*]}" >&2; exit 1; }
