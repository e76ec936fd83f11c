#!/usr/bin/env bash
# On a machine with an NVIDIA GPU: correctness against the CPU, the benches, the trainings; one JSON.
#
#   scripts/gpu_check.sh [folder for the results, default runs/gpu_check]
#
# Needs pip install -e '.[cuda12,torch]' (or cuda13). GPTJAX_PLATFORM=cpu tries the script itself without a GPU,
# with tiny models. GPTJAX_DATA=FILE is tiny Shakespeare where nothing can be fetched.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu_check}
mkdir -p "$out"
python=${PYTHON:-python}
platform=${GPTJAX_PLATFORM:-cuda}
both=$platform
if [[ $platform != cpu ]]; then both=$platform,cpu; fi
data=()
if [[ -n "${GPTJAX_DATA:-}" ]]; then data=("--config.data.path=$GPTJAX_DATA"); fi

tiny=()
if [[ $platform == cpu ]]; then
  tiny=(--config.model.n_layer=1 --config.model.n_head=2 --config.model.n_embd=32
    --config.model.block_size=32 --config.train.batch_size=4 --config.model.dtype=float32
    --config.bench.rounds=2 --config.bench.turn_s=0.05 --config.bench.torch_compile=False
    --config.bench.batch_size=4 --config.sample.max_new_tokens=40)
fi

echo "== correctness: the same loss and gradients as on the CPU"
JAX_PLATFORMS=$both $python scripts/gpu_parity.py > "$out/parity.json"
cat "$out/parity.json"

bench() { # name, config, further flags
  echo "== bench: $1"
  local name=$1 config=$2
  shift 2
  JAX_PLATFORMS=$platform $python main.py --config="$config" --mode=bench --workdir="$out/$name" \
    "${data[@]}" "$@" "${tiny[@]}"
}
bench bench_nanogpt configs/char_nanogpt.py:gpu
bench bench_baby configs/char.py:baby
bench bench_gpt2 configs/gpt2.py:124m --config.train.batch_size=16 --config.train.steps=100

train() { # name, config, further flags
  echo "== train: $1"
  local name=$1 config=$2 began
  shift 2
  rm -rf "${out:?}/$name"
  began=$(date +%s.%N)
  JAX_PLATFORMS=$platform $python main.py --config="$config" --mode=train --workdir="$out/$name" \
    "${data[@]}" "$@" "${tiny[@]}"
  JAX_PLATFORMS=$platform $python main.py --config="$config" --mode=eval --json \
    --workdir="$out/$name" > "$out/$name.json"
  echo "{\"seconds\": $(echo "$(date +%s.%N) - $began" | bc)}" > "$out/$name.seconds.json"
}
steps=()
if [[ $platform == cpu ]]; then steps=(--config.train.steps=20); fi
train train_baby configs/char.py:baby "${steps[@]}"

$python - "$out" << 'END'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
files = sorted(out.glob('*.json')) + sorted(out.glob('*/bench.json'))
result = {str(f.relative_to(out)): json.loads(f.read_text()) for f in files if f.name != 'gpu_check.json'}
(out / 'gpu_check.json').write_text(json.dumps(result, indent=1) + '\n')
print(f'Written: {out / "gpu_check.json"}')
END
