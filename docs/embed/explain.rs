// cargo run explained.onnx picture.png map.png; cargo add ort@2.0.0-rc.10 image ndarray, feature "ndarray" of ort
use image::{imageops::FilterType, GrayImage, Luma};
use ort::{session::Session, value::Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().collect();
    let (height, width) = (64usize, 64usize); // of the model's input
    let seen = image::open(&args[2])?.resize_exact(width as u32, height as u32, FilterType::Triangle).to_rgb8();
    let mut x = vec![0f32; 3 * height * width]; // NCHW, as the model was trained
    for (column, row, pixel) in seen.enumerate_pixels() {
        for channel in 0..3 {
            let at = (channel * height + row as usize) * width + column as usize;
            x[at] = (pixel[channel] as f32 / 255.0 - 0.5) / 0.25;
        }
    }

    let mut session = Session::builder()?.commit_from_file(&args[1])?;
    let input = Tensor::from_array(([1usize, 3, height, width], x))?;
    let found = session.run(ort::inputs!["image" => input])?;
    let (_, target) = found["target"].try_extract_tensor::<i64>()?;
    let (_, score) = found["score"].try_extract_tensor::<f32>()?;
    println!("class {}, score {:.4}", target[0], score[0]);

    let (_, map) = found["saliency"].try_extract_tensor::<f32>()?;
    let (low, high) = map.iter().fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)));
    GrayImage::from_fn(width as u32, height as u32, |column, row| {
        let value = map[row as usize * width + column as usize];
        Luma([(255.0 * (value - low) / (high - low)).round() as u8])
    })
    .save(&args[3])?;
    Ok(())
}
