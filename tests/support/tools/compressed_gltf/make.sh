# Write tests/golden/compressed: buffers of meshoptimizer, textures of Basis Universal and models of gltfpack.
set -euo pipefail
cd "$(dirname "$0")"
out=../../../golden/compressed
mkdir -p "$out"
(cd ../../../.. && .venv/bin/python -m tests.support.tools.compressed_gltf.plain tests/golden/compressed/plain.glb)
node buffers.mjs "$out/buffers.json"
node texture.mjs "$out/etc1s.ktx2" 64 48 etc1s
node texture.mjs "$out/uastc.ktx2" 64 48 uastc alpha
for kind in ext khr; do
  npx gltfpack -i "$out/plain.glb" -o "$out/$kind.glb" -cc -ce $kind -kn -vp 16 -vn 8
done
npx gltfpack -i "$out/plain.glb" -o "$out/floats.glb" -cc -noq -kn
npx gltfpack -i "$out/plain.glb" -o "$out/fallback.glb" -cf -kn -vp 16 && rm "$out/fallback.fallback.bin"
