// Folds histories with the WebAssembly module: node check.mjs MODULE HISTORIES
import { readFile } from "node:fs/promises";

const [module, histories] = await Promise.all(process.argv.slice(2).map((path) => readFile(path)));
const { instance } = await WebAssembly.instantiate(module);
const { push, check, report } = instance.exports;
for (const byte of histories) push(byte);
const steps = check();
if (steps === 0) {
  const bytes = [];
  for (let byte = report(0); byte !== 0; byte = report(bytes.length)) bytes.push(byte);
  console.error(Buffer.from(bytes).toString() || "there is no step to check");
  process.exit(1);
}
console.log(`${steps} steps agree`);
