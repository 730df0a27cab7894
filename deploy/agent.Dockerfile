# The agent in a container: docker build -f deploy/agent.Dockerfile -t fedagent .
# It opens no port, runs as nobody in particular, and writes to /var/lib/fedagent alone. docs/owners.md says how to run it.

ARG PYTHON=3.12
FROM python:${PYTHON}-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY client_agent client_agent
RUN python -m venv /opt/fedagent && /opt/fedagent/bin/pip install --no-cache-dir ".[agent]"

FROM python:${PYTHON}-slim
# What the training code needs beside the agent, for example: docker build --build-arg PACKAGES="torch my-app" …
ARG PACKAGES=""
COPY --from=build /opt/fedagent /opt/fedagent
RUN if [ -n "$PACKAGES" ]; then /opt/fedagent/bin/pip install --no-cache-dir $PACKAGES; fi \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/fedagent fedagent \
    && chmod 700 /var/lib/fedagent
USER fedagent
ENV FEDAGENT_HOME=/var/lib/fedagent FEDAGENT_LOG_FORMAT=json PATH=/opt/fedagent/bin:$PATH
VOLUME /var/lib/fedagent
STOPSIGNAL SIGTERM
ENTRYPOINT ["fedagent"]
CMD ["run"]
