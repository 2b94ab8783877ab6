// dotnet run explained.onnx picture.png map.png (packages Microsoft.ML.OnnxRuntime, SixLabors.ImageSharp)
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;
using SixLabors.ImageSharp;
using SixLabors.ImageSharp.PixelFormats;
using SixLabors.ImageSharp.Processing;

const int height = 64, width = 64;  // of the model's input
using var picture = Image.Load<Rgb24>(args[1]);
picture.Mutate(p => p.Resize(width, height, KnownResamplers.Box));
var x = new DenseTensor<float>(new[] { 1, 3, height, width });  // as the model was trained
for (int row = 0; row < height; row++)
    for (int column = 0; column < width; column++) {
        var pixel = picture[column, row];
        foreach (var (channel, value) in new[] { (0, pixel.R), (1, pixel.G), (2, pixel.B) })
            x[0, channel, row, column] = (value / 255f - 0.5f) / 0.25f;
    }

using var session = new InferenceSession(args[0]);
using var found = session.Run(new[] { NamedOnnxValue.CreateFromTensor("image", x) }, new[] { "saliency", "target", "score" });
var results = found.ToDictionary(value => value.Name);
Console.WriteLine($"class {results["target"].AsTensor<long>()[0]}, score {results["score"].AsTensor<float>()[0]}");

var map = results["saliency"].AsTensor<float>().ToArray();
var (low, high) = (map.Min(), map.Max());
var grey = map.Select(value => new L8((byte)MathF.Round(255 * (value - low) / (high - low)))).ToArray();
using var heat = Image.LoadPixelData<L8>(grey, width, height);
heat.SaveAsPng(args[2]);
