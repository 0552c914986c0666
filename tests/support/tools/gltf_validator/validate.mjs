// Khronos' glTF validator on one file, its report as JSON: node validate.mjs NODE_MODULES FILE
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [modules, file] = process.argv.slice(2);
const validator = createRequire(resolve(modules, "here.js"))("gltf-validator");
const report = await validator.validateBytes(new Uint8Array(readFileSync(file)), { uri: file, maxIssues: 100 });
console.log(JSON.stringify(report));
