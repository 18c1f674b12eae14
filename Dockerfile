# One image for workers, beats, the console, Flower and `sagas migrate`; the command decides which.

FROM python:3.11.14-slim-bookworm AS build

# What constraints.txt pins is what the project was tested with; building the wheel is held to it too.
ENV PIP_CONSTRAINT=/source/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY docs/pypi.py docs/pypi.py
COPY sagas sagas
RUN pip wheel --no-deps --wheel-dir /wheels .
# Without pip inside: the environment is complete, and nothing is to be installed into it later.
RUN python -m venv --without-pip /venv \
    && pip --python /venv/bin/python install "$(ls /wheels/*.whl)[console,flower]"


FROM python:3.11.14-slim-bookworm

COPY --from=build /venv /venv
RUN groupadd --gid 10001 sagas \
    && useradd --uid 10001 --gid sagas --no-create-home --home-dir /app --shell /usr/sbin/nologin sagas \
    && mkdir /app /modules

# The reference deployment, which `celery -A tasks` runs.
COPY tasks /reference/tasks
COPY celeryconfig.py /reference/

# Your saga modules: copied to /app by an image made FROM this one, or mounted at /modules.
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app:/modules:/reference \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app

USER 10001:10001
# A worker that gets it ends at the next step's boundary and hands its sagas on.
STOPSIGNAL SIGTERM
CMD ["celery", "-A", "tasks", "worker", "--loglevel=INFO"]
