// Compiles Solidity with the compiler's WebAssembly build and nothing else: `node compile.js soljson.js` reads the
// compiler's standard JSON input and writes {"version": ..., "output": ...}.
// https://docs.soliditylang.org/en/latest/using-the-compiler.html#compiler-input-and-output-json-description
"use strict";
const fs = require("fs");
const path = require("path");

const compiler = require(path.resolve(process.argv[2]));
const version = compiler.cwrap("solidity_version", "string", [])();
// The input names every source with its content, so the callback for imports (a function pointer) is none: 0.
const compile = compiler.cwrap("solidity_compile", "string", ["string", "number", "number"]);
const output = JSON.parse(compile(fs.readFileSync(0, "utf8"), 0, 0));
process.stdout.write(JSON.stringify({ version, output }));
