# A node of the AWS and GCP clusters (docs/cluster.md): Debian, Python 3.11, Blender's system libraries, the locked
# packages. The code is not in it: `ray up` mounts the checkout that you run it from.
#   docker build --tag registry.example.com/isotropic3d-node:1 .
FROM python:3.11-slim-bookworm

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
