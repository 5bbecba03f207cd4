# The CPU build, for jobs that mount their code at /work: docker run --rm -v "$PWD:/work" overfit --overfit-config FILE
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
COPY . /src
RUN pip install -c /src/constraints.txt "/src[pages,trainer]"
WORKDIR /work
ENTRYPOINT ["python", "-m", "pytest"]
