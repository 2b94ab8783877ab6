// node explain.mjs explained.onnx picture.png map.png (npm install onnxruntime-node sharp)
import * as ort from "onnxruntime-node";
import sharp from "sharp";

const [model, picture, out] = process.argv.slice(2);
const [height, width] = [64, 64]; // of the model's input
const session = await ort.InferenceSession.create(model);
const opened = sharp(picture).rotate().flatten({ background: "#fff" }); // as EXIF says, over white
const seen = opened.toColourspace("srgb").resize(width, height, { fit: "fill" });
const pixels = await seen.raw({ depth: "uchar" }).toBuffer();

const x = new Float32Array(3 * height * width); // NCHW, as the model was trained
for (let i = 0; i < pixels.length; i++) {
  x[(i % 3) * height * width + Math.floor(i / 3)] = (pixels[i] / 255 - 0.5) / 0.25;
}
const input = new ort.Tensor("float32", x, [1, 3, height, width]);
const { saliency, target, score, completeness } = await session.run({ [session.inputNames[0]]: input });
console.log(
  `class ${target.data[0]}, score ${score.data[0].toFixed(4)}, residual ${completeness.data[0].toExponential(1)}`,
);

const [least, most] = [Math.min(...saliency.data), Math.max(...saliency.data)];
const grey = Uint8Array.from(saliency.data, (s) => Math.round((255 * (s - least)) / (most - least)));
await sharp(grey, { raw: { width, height, channels: 1 } })
  .png()
  .toFile(out);
