// A bundle's graphs on ONNX Runtime for Node.js, as a host of vtr-conformance (docs/certify-a-host.md).
//
// It runs graphs and nothing else: frames and tokens come from the suite. Replies are the only thing that it writes to
// standard output; warnings of ONNX Runtime go to standard error by themselves.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { createInterface } from "node:readline";
import ort from "onnxruntime-node";

const PROTOCOL = 1;
// By safetensors' name of a type: ONNX Runtime's, and the array that holds it.
const TYPES = {
  F32: ["float32", Float32Array],
  I32: ["int32", Int32Array],
  U8: ["uint8", Uint8Array],
  BOOL: ["bool", Uint8Array],
};
const NAMES = Object.fromEntries(Object.entries(TYPES).map(([name, [type]]) => [type, name]));

// A safetensors file: the header's length as a 64-bit little-endian number, the header as JSON, then all values.
function readTensors(path) {
  const file = readFileSync(path);
  const begin = 8 + Number(file.readBigUInt64LE(0));
  const { __metadata__, ...entries } = JSON.parse(file.toString("utf8", 8, begin));
  const tensors = {};
  for (const [name, { dtype, shape, data_offsets }] of Object.entries(entries)) {
    const [type, Values] = TYPES[dtype];
    const bytes = Uint8Array.from(file.subarray(begin + data_offsets[0], begin + data_offsets[1])); // aligned by the copy
    tensors[name] = new ort.Tensor(type, new Values(bytes.buffer), shape);
  }
  return tensors;
}

function writeTensors(path, tensors) {
  const header = {};
  const values = [];
  let end = 0;
  for (const [name, { type, dims, data }] of Object.entries(tensors)) {
    const start = end;
    end += data.byteLength;
    header[name] = { dtype: NAMES[type], shape: [...dims], data_offsets: [start, end] };
    values.push(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
  }
  let text = Buffer.from(JSON.stringify(header));
  text = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, " ")]); // the values begin at a multiple of 8
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, ...values]));
}

const sessions = {};

async function hello({ bundle, protocol }) {
  if (protocol !== PROTOCOL) return { error: `this host speaks version ${PROTOCOL} of the protocol, not ${protocol}` };
  const manifest = JSON.parse(readFileSync(join(bundle, "manifest.json"), "utf8"));
  for (const graph of ["video", "text", "rerank"]) {
    const spec = manifest.graphs[graph];
    if (spec) sessions[graph] = await ort.InferenceSession.create(join(bundle, spec.file));
  }
  const precision = manifest.graph_precision;
  const emulated = precision === "fp16" || precision === "bf16";
  return {
    protocol: PROTOCOL,
    name: "node",
    backend: "onnxruntime-node",
    version: createRequire(import.meta.url)("onnxruntime-node/package.json").version,
    precision,
    note: emulated ? `ONNX Runtime on the CPU does not compute in ${precision}` : null,
    stages: [],
    graphs: Object.keys(sessions),
  };
}

async function run({ graph, tensors, output }) {
  const feed = readTensors(tensors);
  const start = performance.now();
  const found = await sessions[graph].run(feed);
  const seconds = (performance.now() - start) / 1000;
  writeTensors(output, found);
  return { seconds };
}

const answers = { hello, run };

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  if (request.do === "bye") break;
  let reply;
  try {
    reply = await answers[request.do](request);
  } catch (error) {
    reply = { error: String(error.message ?? error) };
  }
  process.stdout.write(JSON.stringify({ id: request.id, ...reply }) + "\n");
}
process.exit(0);
