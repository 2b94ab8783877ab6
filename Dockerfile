# The command line on a processor: docker build --build-arg VERSION=$(git describe --tags --always) -t fgonnx .
#   docker run --rm -v "$PWD:/work" fgonnx explain model.onnx photos -o out --preprocess imagenet
FROM python:3.13-slim AS build
ARG VERSION=0.1.0.dev0
ENV SETUPTOOLS_SCM_PRETEND_VERSION_FOR_FGONNX=${VERSION}
WORKDIR /src
COPY . .
# OpenCV's headless build takes the place of the other, which wants the libraries of a display.
RUN python -m venv /opt/fgonnx \
    && /opt/fgonnx/bin/pip install --no-cache-dir ".[cpu,audit,evaluate]" \
    && /opt/fgonnx/bin/pip uninstall --yes opencv-python \
    && /opt/fgonnx/bin/pip install --no-cache-dir opencv-python-headless==5.0.0.93 \
    && /opt/fgonnx/bin/fgonnx explain examples/shapes.onnx examples/images -o /tmp/out --no-cache

FROM python:3.13-slim
COPY --from=build /opt/fgonnx /opt/fgonnx
RUN useradd --uid 1000 --create-home fgonnx
USER 1000
WORKDIR /work
ENTRYPOINT ["/opt/fgonnx/bin/fgonnx"]
CMD ["--help"]
