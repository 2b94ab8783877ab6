// java -cp onnxruntime.jar Explain.java explained.onnx picture.png map.png (com.microsoft.onnxruntime:onnxruntime)
import ai.onnxruntime.*;
import java.awt.RenderingHints;
import java.awt.image.BufferedImage;
import java.io.File;
import java.util.Map;
import java.util.Set;
import javax.imageio.ImageIO;

public class Explain {
    public static void main(String[] args) throws Exception {
        int height = 64, width = 64; // of the model's input
        var seen = new BufferedImage(width, height, BufferedImage.TYPE_INT_RGB);
        var pen = seen.createGraphics();
        pen.setRenderingHint(RenderingHints.KEY_INTERPOLATION, RenderingHints.VALUE_INTERPOLATION_BICUBIC);
        pen.drawImage(ImageIO.read(new File(args[1])), 0, 0, width, height, null);
        var x = new float[1][3][height][width]; // as the model was trained
        for (int row = 0; row < height; row++)
            for (int column = 0; column < width; column++)
                for (int channel = 0; channel < 3; channel++)
                    x[0][channel][row][column] = ((seen.getRGB(column, row) >> (16 - 8 * channel) & 255) / 255f - 0.5f) / 0.25f;

        var environment = OrtEnvironment.getEnvironment();
        try (var session = environment.createSession(args[0]);
             var input = OnnxTensor.createTensor(environment, x);
             var found = session.run(Map.of("image", input), Set.of("saliency", "target", "score"))) {
            System.out.printf("class %d, score %.4f%n", ((long[]) found.get("target").get().getValue())[0],
                    ((float[]) found.get("score").get().getValue())[0]);
            float[][] map = ((float[][][]) found.get("saliency").get().getValue())[0];
            float low = Float.MAX_VALUE, high = -Float.MAX_VALUE;
            for (float[] row : map) for (float value : row) { low = Math.min(low, value); high = Math.max(high, value); }
            var heat = new BufferedImage(width, height, BufferedImage.TYPE_BYTE_GRAY);
            for (int row = 0; row < height; row++)
                for (int column = 0; column < width; column++)
                    heat.getRaster().setSample(column, row, 0, Math.round(255 * (map[row][column] - low) / (high - low)));
            ImageIO.write(heat, "png", new File(args[2]));
        }
    }
}
