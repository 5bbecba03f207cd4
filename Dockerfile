# The CPU build, for jobs that mount their code at /work:
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" overfit --overfit-config FILE
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/*
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1
WORKDIR /src
# What it stands on, PyTorch among it: a layer of its own, which a change of the code leaves as it is.
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; extras = project['optional-dependencies']; print(*project['dependencies'], *extras['pages'], *extras['trainer'], sep='\n')" > requirements.txt \
    && pip install -c constraints.txt -r requirements.txt
COPY . .
RUN pip install --no-deps .
# Whatever user it runs as (--user) has a name and a home for the caches of PyTorch.
RUN useradd --create-home overfit
ENV HOME=/tmp USER=overfit
USER overfit
WORKDIR /work
ENTRYPOINT ["python", "-m", "pytest"]
