# The example server and client, installed from the wheel, for the compose profile `demo`.
# The build needs a compiler for nothing: every dependency comes as a wheel.

FROM python:3.13.16-slim-trixie AS build
WORKDIR /build
COPY constraints.txt ./
RUN python -m venv /tools \
    && /tools/bin/pip install --no-cache-dir --constraint constraints.txt build grpcio-tools hatchling \
    && python -m venv --without-pip /venv
COPY . ./
RUN /tools/bin/python -m build --wheel --no-isolation --outdir /wheels \
    && /tools/bin/pip --python /venv/bin/python install --no-cache-dir \
        --constraint constraints.txt /wheels/*.whl
# As a newcomer would, with the compiler that the pinned protobuf runtime accepts.
RUN /tools/bin/python -m grpc_tools.protoc --proto_path=proto \
        --python_out=examples/greeter --grpc_python_out=examples/greeter proto/helloworld.proto

FROM python:3.13.16-slim-trixie
ENV PATH=/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /build/examples examples
# A number, so that Kubernetes' runAsNonRoot can check it too.  It owns none of these files.
USER 10001:10001
EXPOSE 50051
CMD ["python", "examples/greeter/server.py", "--host", "0.0.0.0", "--port", "50051"]
