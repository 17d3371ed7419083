// Judges a PNG by an exported run, without Python:
//
//   npm install onnxruntime-node pngjs
//   node detect.mjs bottle.onnx photograph.png map.png
//
// Prints the score and the verdict, and writes the anomaly map as a gray PNG on the run's scale.
import crypto from "node:crypto";
import fs from "node:fs";
import ort from "onnxruntime-node";
import { PNG } from "pngjs";

const [model, photograph, output] = process.argv.slice(2);
if (!output) {
  console.error("use: node detect.mjs MODEL.onnx IMAGE.png MAP.png");
  process.exit(2);
}

// What the export wrote, or nothing: one changed bit may give other scores, and no error.
const digests = fs.readFileSync(`${model}.sha256`, "utf8").split("\n");
const [network, description] = [model, `${model}.json`].map((file, i) => {
  const content = fs.readFileSync(file);
  if (crypto.createHash("sha256").update(content).digest("hex") !== digests[i].slice(0, 64)) {
    console.error(`${file} is damaged: its digest is not that in ${model}.sha256`);
    process.exit(1);
  }
  return content;
});
const record = JSON.parse(description);
const session = await ort.InferenceSession.create(network);

// pngjs gives red, green, blue and opacity of every pixel; transparent ones lie on white.
const { width, height, data } = PNG.sync.read(fs.readFileSync(photograph));
// Photographs of which tiles are seen have one size; otherwise height and width are names.
const [, wantedRows, wantedColumns] = record.input.shape;
if (Number.isInteger(wantedRows) && (height !== wantedRows || width !== wantedColumns)) {
  console.error(`${photograph} has ${width} x ${height} pixels, ${model} takes photographs of ` +
    `${wantedColumns} x ${wantedRows} (width x height)`);
  process.exit(2);
}
const pixels = new Uint8Array(width * height * 3);
for (let i = 0; i < width * height; i++) {
  const opacity = data[4 * i + 3] / 255;
  for (let c = 0; c < 3; c++) {
    pixels[3 * i + c] = Math.round(opacity * data[4 * i + c] + (1 - opacity) * 255);
  }
}
const image = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
const { score, map } = await session.run({ image }, ["score", "map"]);

const value = score.data[0];
const threshold = record.image_threshold;
console.log(value, threshold === null ? "no threshold" : value > threshold ? "reject" : "accept");

const [, rows, columns] = map.dims;
const low = record.heat_map_low ?? map.data.reduce((a, b) => Math.min(a, b));
const high = record.heat_map_high ?? map.data.reduce((a, b) => Math.max(a, b));
const picture = new PNG({ width: columns, height: rows });
map.data.forEach((one, i) => {
  const shade = Math.round(255 * Math.min(Math.max((one - low) / (high - low || 1), 0), 1));
  picture.data.set([shade, shade, shade, 255], 4 * i);
});
fs.writeFileSync(output, PNG.sync.write(picture));
