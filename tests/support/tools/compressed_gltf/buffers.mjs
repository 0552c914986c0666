// Write buffers that meshoptimizer encodes, and what its own decoder reads: node buffers.mjs FILE.json
import { writeFileSync } from "node:fs";
import { MeshoptDecoder as decoder } from "meshoptimizer/decoder";
import { MeshoptEncoder as encoder } from "meshoptimizer/encoder";

await Promise.all([encoder.ready, decoder.ready]);
let state = 1;
const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
const text = (bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
const cases = [];

function add(data, count, stride, mode, filter = "NONE") {
  const plain = new Uint8Array(count * stride);
  decoder.decodeGltfBuffer(plain, count, stride, data, mode, filter);
  cases.push({ mode, filter, count, stride, data: text(data), plain: text(plain) });
}

const fills = {
  noise: (bytes) => bytes.forEach((_, i) => (bytes[i] = random() * 256)),
  steps: (bytes, stride) => bytes.forEach((_, i) => (bytes[i] = Math.floor(i / stride) * (i % 5) + random() * (i % 3))),
  floats: (bytes) => new Float32Array(bytes.buffer).forEach((_, i, f) => (f[i] = Math.sin(i / 100) + random() / 1000)),
  shorts: (bytes) => new Uint16Array(bytes.buffer).forEach((_, i, s) => (s[i] = i * 3 + random() * 40)),
};
for (const [count, stride] of [[1, 4], [17, 12], [260, 4], [33, 256]])
  for (const fill of stride === 256 ? [fills.steps] : Object.values(fills))
    for (const [version, level] of [[0, 2], [1, 2], [1, 3]]) {
      const bytes = new Uint8Array(count * stride);
      fill(bytes, stride);
      add(encoder.encodeVertexBufferLevel(bytes, count, stride, level, version), count, stride, "ATTRIBUTES");
    }

const count = 40;
function rows(axes) {
  const values = new Float32Array(count * 4).fill(1);
  for (let i = 0; i < count; i++) {
    const row = Array.from({ length: axes }, () => random() - 0.5);
    values.set(row.map((value) => value / Math.hypot(...row)), 4 * i);
  }
  return values;
}
const colors = new Float32Array(count * 4).map(random);
for (const [filter, values, encode, strides] of [
  ["OCTAHEDRAL", rows(3), "encodeFilterOct", [[4, 8], [8, 12]]],
  ["QUATERNION", rows(4), "encodeFilterQuat", [[8, 16]]],
  ["EXPONENTIAL", rows(4), "encodeFilterExp", [[16, 15], [16, 24]]],
  ["COLOR", colors, "encodeFilterColor", [[4, 8], [8, 12]]],
])
  for (const [stride, bits] of strides) {
    const bytes = encoder[encode](values, count, stride, bits);
    add(encoder.encodeVertexBufferLevel(bytes, count, stride, 2, 1), count, stride, "ATTRIBUTES", filter);
  }

for (const stride of [2, 4])
  for (const index of [
    () => random() * (stride === 2 ? 65000 : 3e6),
    (i) => Math.floor(i / 6) + (i % 6 < 3 ? i % 3 : 1 + (i % 3)),
    (i) => {
      const square = Math.floor(i / 6), corner = square + Math.floor(square / 10);
      return corner + [0, 1, 11, 1, 12, 11][i % 6];
    },
  ]) {
    const indices = (stride === 2 ? Uint16Array : Uint32Array).from({ length: 180 }, (_, i) => index(i));
    const bytes = new Uint8Array(indices.buffer);
    for (const mode of ["TRIANGLES", "INDICES"])
      add(encoder.encodeGltfBuffer(bytes, indices.length, stride, mode), indices.length, stride, mode);
  }
writeFileSync(process.argv[2], JSON.stringify(cases, null, 0).replaceAll("},", "},\n") + "\n");
