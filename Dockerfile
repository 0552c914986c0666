# Two images. Without --target, the second is built.
#   docker build --target app --tag isotropic3d-app .                    the app (docs/app.md)
#   docker build --tag registry.example.com/isotropic3d-node:1 .         a node of a cluster (docs/cluster.md)

# The app, for a CPU. For a GPU: --build-arg DEVICE=gpu, and `docker run --gpus all`; the packages contain the CUDA
# libraries, so the same base is enough. Blender is left out.
FROM python:3.11-slim-bookworm AS app

ARG DEVICE=cpu
COPY requirements.lock requirements-app.lock /opt/isotropic3d/
WORKDIR /opt/isotropic3d
RUN skip='^bpy' && if [ "$DEVICE" = cpu ]; then skip='^(bpy|cuda-|nvidia-|triton)' \
    && grep -E '^torch(vision)?==' requirements.lock > torch.lock \
    && pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu --requirement torch.lock; fi \
    && grep -Ev "$skip" requirements.lock > app.lock \
    && pip install --no-cache-dir --no-deps --requirement app.lock --requirement requirements-app.lock

COPY dataset dataset
COPY train train
COPY distill distill
COPY weights weights
COPY examples/*.png examples/

RUN useradd --uid 1000 --create-home app && install --directory --owner app /out
USER app
# The model is in the image, and nothing is requested from the network.
ENV HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
VOLUME /out
EXPOSE 7860
ENTRYPOINT ["python", "-m", "distill.app", "--host", "0.0.0.0", "--port", "7860", "--out", "/out"]

# A node of the AWS and GCP clusters: Debian, Python 3.11, Blender's system libraries, the locked packages. The code is
# not in it: `ray up` mounts the checkout that you run it from.
FROM python:3.11-slim-bookworm AS node

# Blender's libraries, as render/system_check.py lists them.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
    libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libgl1 libegl1 \
    && rm -rf /var/lib/apt/lists/*

# What Ray's launcher needs: it copies with rsync, the head reaches the workers by ssh, `ray submit --tmux` starts tmux.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
    openssh-client rsync tmux \
    && rm -rf /var/lib/apt/lists/*

# The whole of the NVIDIA driver: OptiX is a graphics library to the container toolkit.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all

COPY requirements.lock /opt/isotropic3d/requirements.lock
RUN pip install --no-cache-dir --requirement /opt/isotropic3d/requirements.lock

WORKDIR /root
CMD ["bash"]
