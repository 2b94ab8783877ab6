// g++ -std=c++17 explain.cpp -lonnxruntime -o explain && ./explain explained.onnx picture.ppm map.pgm
#include <onnxruntime_cxx_api.h>
#include <algorithm>
#include <array>
#include <fstream>
#include <iostream>
#include <vector>

int main(int, char** argv) {
  std::ifstream file(argv[2], std::ios::binary);  // P6 without comments, as large as the model's input
  std::string kind; int width, height, most;
  file >> kind >> width >> height >> most; file.get();
  std::vector<unsigned char> pixels(3 * width * height);
  file.read(reinterpret_cast<char*>(pixels.data()), pixels.size());
  std::vector<float> x(pixels.size());  // NCHW, as the model was trained
  for (size_t i = 0; i < x.size(); i++) x[i % 3 * width * height + i / 3] = (pixels[i] / 255.f - 0.5f) / 0.25f;

  Ort::Env env;
  Ort::Session session(env, argv[1], Ort::SessionOptions{});
  std::array<int64_t, 4> shape{1, 3, height, width};
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto input = Ort::Value::CreateTensor<float>(memory, x.data(), x.size(), shape.data(), shape.size());
  const char *inputs[] = {"image"}, *outputs[] = {"saliency", "target", "score"};
  auto found = session.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 3);
  std::cout << "class " << *found[1].GetTensorData<int64_t>() << ", score " << *found[2].GetTensorData<float>() << "\n";

  const float* map = found[0].GetTensorData<float>();
  auto [low, high] = std::minmax_element(map, map + width * height);
  std::ofstream out(argv[3], std::ios::binary);
  out << "P5 " << width << " " << height << " 255\n";
  for (int i = 0; i < width * height; i++) out.put(static_cast<char>(255 * (map[i] - *low) / (*high - *low) + 0.5f));
}
