// Write a gradient as KTX2: node texture.mjs FILE.ktx2 WIDTH HEIGHT uastc|etc1s [alpha]
import { writeFileSync } from "node:fs";
import { encodeToKTX2 } from "ktx2-encoder";

const [, , file, width, height, codec, alpha] = process.argv;
const [w, h] = [Number(width), Number(height)];
const data = new Uint8Array(w * h * 4);
for (let y = 0; y < h; y++)
  for (let x = 0; x < w; x++)
    data.set([(x * 255) / (w - 1), (y * 255) / (h - 1), x < w / 2 ? 200 : 40, alpha && y >= h / 2 ? 100 : 255], 4 * (y * w + x));
const options = {
  isUASTC: codec === "uastc",
  needSupercompression: codec === "uastc",
  generateMipmap: true,
  isKTX2File: true,
  isSetKTX2SRGBTransferFunc: true,
  qualityLevel: 200,
  imageDecoder: async () => ({ data, width: w, height: h }),
};
writeFileSync(file, await encodeToKTX2(new Uint8Array(4), options));
