"""Every setting: name, type, default, unit, reason. Built once at the door; nothing below reads the environment.

Environment: ``TRIAGE_<SECTION>__<NAME>``, e.g. ``TRIAGE_KAFKA__BOOTSTRAP=host:9092``. TOML: ``[section] name = …``.
Reading environment and file is done in ``launch/settings_in.py``.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from contracts.findings import Urgency
from contracts.names import Lane

Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]

KIB, MIB, GIB = 1024, 1024**2, 1024**3
AE_TITLE_LENGTH = 16  # PS3.5 6.2
LAST_PORT = 65535


class Section(BaseModel):
    """An unknown name is an error, not a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class KafkaSettings(Section):
    """The broker."""

    bootstrap: str = Field("127.0.0.1:9092", description="host:port[,host:port…] of the brokers")
    topic_prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", description="put before every topic and group name")
    partitions: Count = Field(24, description="partition count of every topic; fixed at creation")
    replication: Count = Field(
        3, description="replication factor of topics we create; two copies are left when a broker dies"
    )
    min_insync: Count = Field(2, description="min.insync.replicas of topics we create and expect")
    create_topics: bool = Field(True, description="create missing topics at start")
    require_durable: bool = Field(False, description="refuse to start on a broker that does not meet the two above")
    memory_only: bool = Field(False, description="the broker keeps nothing across a restart (embedded Tansu): warn")
    scan_retention_s: Seconds = Field(7 * 86400.0, description="retention.ms of scans.* and scans.dead, in seconds")
    max_record_bytes: Bytes = Field(16 * MIB, description="largest record we send; stays under the broker's limit")
    buffer_bytes: Bytes = Field(256 * MIB, description="high-water mark of the send buffer: above it 0xA700")
    ack_timeout_s: Seconds = Field(20.0, description="longest wait for acks=all; below the modality's DIMSE timeout")
    session_timeout_s: Seconds = Field(
        6.0, description="a consumer silent that long loses its partitions: others go on within a tenth of a minute"
    )
    fetch_max_wait_ms: Count = Field(100, description="longest wait of a fetch; Tansu delivers late above 100 ms")
    cooperative: bool = Field(True, description="cooperative-sticky rebalances; off where the broker cannot")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how to speak to the brokers; SSL in a cluster"
    )
    ssl_cafile: str = Field("", description="file with the certificate authority of the brokers")
    ssl_certfile: str = Field("", description="file with our certificate (mTLS)")
    ssl_keyfile: str = Field("", description="file with our key (mTLS)")
    sasl_mechanism: str = Field("", description="e.g. SCRAM-SHA-512; empty: none")
    sasl_username: str = Field("", description="SASL user")
    sasl_password: SecretStr = Field(SecretStr(""), description="SASL password")


class RedisSettings(Section):
    """The queue's store."""

    url: SecretStr = Field(SecretStr("redis://127.0.0.1:6379/0"), description="redis:// or rediss:// URL")
    key_prefix: str = Field("triage:", pattern=r"^[A-Za-z0-9:._-]*$", description="put before every key")
    timeout_s: Seconds = Field(2.0, description="socket and connect timeout; commands take milliseconds")
    keep_days: Annotated[float, Field(gt=0)] = Field(
        30.0, description="a closed study leaves after that many days: it was read long before"
    )
    changes_max: Count = Field(
        10_000,
        description="length at which the stream of live changes is trimmed; who missed more reads the whole list",
    )


class TritonSettings(Section):
    """The inference server."""

    url: str = Field("127.0.0.1:8001", description="host:port of Triton's gRPC endpoint")
    request_timeout_s: Seconds = Field(
        10.0, description="deadline of one inference request; one takes well under a second, a full queue a few"
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        2, description="repeats of a retriable request, within its deadline: for a lost link, not for a lost server"
    )
    breaker_failures: Count = Field(
        5, description="consecutive peer failures that open the circuit breaker; a lost link makes one or two"
    )
    breaker_open_s: Seconds = Field(
        2.0, description="how long it stays open before one probe: a server that restarts is found soon"
    )


class PayloadSettings(Section):
    """Claim check: where instances go that are too large for a record."""

    url: str = Field("", description="fsspec URL, e.g. file:///var/lib/triage/payload or s3://…; empty: none taken")
    inline_limit_bytes: Bytes = Field(
        8 * MIB, description="larger instances go to the claim check; a CT slice has 0.5 MiB, a record up to 16 MiB"
    )
    max_bytes: Bytes = Field(
        2 * GIB,
        description="larger instances are refused: each is in memory once, and limits.memory_share of "
        "limits.memory_bytes must hold it; 2 GiB are some 4,000 CT slices in one object",
    )
    min_free_bytes: Annotated[int, Field(ge=0)] = Field(
        1 * GIB, description="a disk with less left takes no payload (0xA700): what runs full loses more than one image"
    )
    margin_s: Seconds = Field(
        86400.0,
        description="a payload in a folder is deleted that long after twice the time (retention.ms + segment.ms) that "
        "the scan topics keep a record: once for it, once for its dead letter; s3:// needs a lifecycle rule as long",
    )


class LaneRule(Section):
    """An image takes a lane when every given condition holds; the first rule that matches wins."""

    lane: Lane = Lane.STAT
    calling_ae: str = Field("", description="exact calling AE title")
    modality: str = Field("", description="exact Modality")
    description: str = Field("", description="regular expression searched in StudyDescription, ignoring case")
    priority: Literal["", "low", "medium", "high"] = Field("", description="DIMSE priority (PS3.7 9.3.1.1)")

    @model_validator(mode="after")
    def _some_condition(self) -> Self:
        if not (self.calling_ae or self.modality or self.description or self.priority):
            raise ValueError("a lane rule needs at least one condition")
        return self


class ProducerSettings(Section):
    """The doors: C-STORE, STOW-RS, folder."""

    host: str = Field("127.0.0.1", description="address of the DICOM listener")
    port: Port = Field(11112, description="port of the DICOM listener; 0 takes a free one")
    ae_title: str = Field("TRIAGE", min_length=1, max_length=16, description="our AE title (PS3.5 6.2: up to 16)")
    called_aes: tuple[str, ...] = Field((), description="accepted called AE titles; empty: any")
    calling_aes: tuple[str, ...] = Field((), description="accepted calling AE titles; empty: any")
    max_associations: Count = Field(
        64,
        description="associations at once: each has three threads and a socket; more are rejected as transient, and "
        "scanners, which use one to four, try again",
    )
    max_pdu_bytes: Bytes = Field(
        1 * MIB, description="PDU length we announce (PS3.8 D.1): a CT slice in one, and little where it never ends"
    )
    network_timeout_s: Seconds = Field(
        60.0, description="an association silent that long is closed; scanners pause for seconds between images"
    )
    stow_host: str = Field("127.0.0.1", description="address of the STOW-RS listener")
    stow_port: Port = Field(11114, description="port of the STOW-RS listener; 0 takes a free one")
    stow_max_body_bytes: Bytes = Field(
        4 * GIB,
        description="larger requests get 413: 8,000 CT slices; parts are settled as they come, so that it is not held",
    )
    folder: str = Field("", description="watched folder; empty: none")
    folder_settle_s: Seconds = Field(
        2.0, description="a file unchanged that long is taken as complete; who copies writes several times a second"
    )
    folder_keep: bool = Field(False, description="move taken files to .taken/ instead of deleting them")
    lane_rules: tuple[LaneRule, ...] = Field(
        (LaneRule(priority="high"), LaneRule(description=r"\b(stat|emergency|trauma|stroke|code)\b")),
        description="which images take the stat lane; the first rule that matches wins, none is routine",
    )
    commitment: bool = Field(True, description="offer Storage Commitment Push Model (PS3.4 Annex J)")
    commitment_peers: dict[str, str] = Field(
        {}, description="calling AE title to host:port: where its commitment reports go when its association is gone"
    )
    commitment_references: Count = Field(
        20_000,
        description="instances of one commitment request; a CT of the whole body has some 5,000; more get 0x0213",
    )
    commitment_pending_bytes: Bytes = Field(
        64 * MIB, description="requests whose report is owed, held in memory; above it 0x0213"
    )
    commitment_pending_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="of commitment_pending_bytes for one remote address at most: who never takes a report leaves room",
    )
    commitment_wait_s: Seconds = Field(
        300.0,
        description="an instance that cannot be proven durable within that time is reported as failed (0x0110); as "
        "long as scoring has (flagging.deadline_s), whose outcome proves what other producers took",
    )
    commitment_retry_s: Seconds = Field(
        86400.0, description="a report is tried that long, then given up: peers are down for a night, not for a week"
    )
    commitment_index: str = Field(
        "",
        description="folder of the index of what is durable (some 50 bytes an image); empty: the system's temporary",
    )

    @field_validator("commitment_peers")
    @classmethod
    def _addresses(cls, peers: dict[str, str]) -> dict[str, str]:
        for title, address in peers.items():
            host, _, port = address.rpartition(":")
            if not (
                0 < len(title.strip()) <= AE_TITLE_LENGTH and host and port.isdecimal() and 0 < int(port) <= LAST_PORT
            ):
                raise ValueError("each peer needs an AE title of up to 16 characters and host:port")
        return peers


class LimitSettings(Section):
    """What the doors take at most, whoever sends it: each cap holds before anything is parsed, inflated or decoded."""

    memory_bytes: Bytes = Field(3 * GIB, description="bytes of unsettled objects in all doors together; over it 0xA700")
    memory_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75,
        description="of memory_bytes for one remote address at most; who never ends an object leaves the others room",
    )
    associate_bytes: Bytes = Field(
        256 * KIB, description="A-ASSOCIATE-RQ; 128 contexts of 40 transfer syntaxes need some 140 KiB (PS3.8 9.3.2)"
    )
    associate_items: Count = Field(
        8192,
        description="items within it; the same request has some 5,500: contexts, transfer syntaxes, user information",
    )
    command_set_bytes: Bytes = Field(64 * KIB, description="DIMSE command set; real ones stay below 1 KiB (PS3.7 6.3)")
    command_elements: Count = Field(64, description="elements of a DIMSE command set; PS3.7 E.1 lists some 30")
    message_fragments: Count = Field(
        1_000_000, description="PDVs of one message; 2 GiB in fragments of 4 KiB need half of that"
    )
    pdu_fragments: Count = Field(256, description="PDVs within one PDU; senders put one or two there (PS3.8 9.3.5)")
    messages_waiting: Count = Field(
        16, description="requests of one association not yet answered; we negotiate one at a time (PS3.7 D.3.3.3)"
    )
    associations_per_address: Count = Field(48, description="of one remote address: one greedy peer leaves room")
    associations_per_title: Count = Field(
        32, description="of one calling AE title at one address; not across addresses, as a title can be forged"
    )
    unasked_connections: Count = Field(
        64, description="connections that asked for nothing yet, per listener; the oldest of the busiest address yields"
    )
    first_pdu_s: Seconds = Field(5.0, description="from connecting to a complete A-ASSOCIATE-RQ; scanners take ms")
    pdu_s: Seconds = Field(30.0, description="from a PDU's first byte to its last: 1 MiB at 35 kB/s")
    slow_grace_s: Seconds = Field(
        60.0, description="a message or body may be slow for that long: a link that stalls comes back"
    )
    slow_bytes_per_s: Bytes = Field(1 * KIB, description="then it is ended below that mean rate; a modem is faster")
    inflate_ratio: Count = Field(100, description="CT slices deflate 2- to 4-fold, masks 50-fold; a bomb 1,000-fold")
    inflated_bytes: Bytes = Field(256 * MIB, description="largest deflated data set, inflated; counted in memory_bytes")
    sequence_depth: Count = Field(32, description="sequences within sequences; structured reports stay below 15")
    elements: Count = Field(
        200_000, description="elements and fragments of one object; 2,000 enhanced frames need some 100,000"
    )
    frames: Count = Field(
        20_000, description="frames of one instance, at the doors and in scoring; enhanced CT of a body has some 5,000"
    )
    pixel_bytes: Bytes = Field(
        64 * GIB, description="rows x columns x frames x samples x bytes announced; scoring has a budget of its own"
    )
    http_requests: Count = Field(
        64, description="requests at once to STOW-RS, and to the probes; more get 503 with Retry-After"
    )
    http_requests_per_address: Count = Field(
        32, description="of one remote address, half of all: one greedy client leaves room; raise it behind a proxy"
    )
    http_head_bytes: Bytes = Field(
        16 * KIB, description="request line and headers, at every HTTP listener; browsers send below 4 KiB"
    )
    http_head_s: Seconds = Field(
        10.0, description="silent or idle: from connecting, or the last answer, to the head's end"
    )
    http_answer_s: Seconds = Field(
        60.0, description="an answer of the worklist or the probes that nobody takes: 2 MB at 35 kB/s"
    )
    http_body_bytes: Bytes = Field(
        64 * KIB, description="request body at the worklist and the probes, where none is needed; more get 413"
    )
    http_silence_s: Seconds = Field(
        20.0, description="a request body silent that long gets 408; a lost packet is sent again within seconds"
    )
    stow_parts: Count = Field(
        10_000, description="parts of one STOW-RS request; a CT of the whole body has some 5,000; more get 413"
    )
    part_headers: Count = Field(16, description="headers of one part; clients send one to four (PS3.18 8.6.1.2)")
    part_header_bytes: Bytes = Field(
        4 * KIB, description="one of them, name and value; a media type with its parameters has some 100 bytes"
    )

    @model_validator(mode="after")
    def _room_for_others(self) -> Self:
        if self.inflated_bytes > self.memory_bytes:
            raise ValueError("inflated_bytes must not exceed memory_bytes: no deflated object could ever be taken")
        return self


class ScoringSettings(Section):
    """Scoring."""

    stat_weight: Count = Field(
        8, description="stat records for each routine one while both wait: those come forward, too"
    )
    in_flight_images: Count = Field(
        32, description="scans fetched and not settled: two of Triton's batches, and within drain_s they are settled"
    )
    in_flight_bytes: Bytes = Field(
        256 * MIB, description="bytes of those: as many times payload.inline_limit_bytes, the most that a record holds"
    )
    threads: Count = Field(2, description="decoding threads; more than there are cores gain nothing")
    decode_budget_bytes: Bytes = Field(
        1 * GIB,
        description="largest decoded instance, checked before decoding: 2,000 CT slices of 512 KiB in one object",
    )
    frame_budget_bytes: Bytes = Field(
        64 * MIB, description="largest single decoded frame: 8192 x 4096 of 2 bytes; mammograms stay below half of that"
    )
    decode_timeout_s: Seconds = Field(
        10.0, description="one compressed frame; real ones take well under a second. A decoder silent longer is killed"
    )
    decode_instance_s: Seconds = Field(
        300.0, description="all compressed frames of one instance: 5,000 frames of 50 ms fit"
    )
    decoder_memory_bytes: Bytes = Field(
        1 * GIB, description="address space of a decoder process beyond its own: a frame of 64 MiB needs some 400 MiB"
    )
    brain_mask: bool = Field(
        True, description="ask the brain mask where a slice may be no head, and where something was found (0013)"
    )
    drain_s: Seconds = Field(
        20.0, description="time to settle what is in flight on SIGTERM; what is not, another worker reads again"
    )


class FlaggingSettings(Section):
    """Flagging: when a study closes, when it must be told, in which order it is read."""

    quiet_s: Seconds = Field(10.0, description="no image for that long and all settled: the study closes")
    deadline_s: Seconds = Field(
        300.0,
        description="an image that waits longer makes its study not analysed (delayed): a bleed is to be read by then",
    )
    agree_slices: Count = Field(
        2, description="neighbouring slices that must be positive together: a single one is mostly an artefact"
    )
    agree_extent_mm: Annotated[float, Field(ge=0)] = Field(
        3.0, description="along the slice normal, for thin slices: a finding spans at least that much"
    )
    max_gap_mm: Annotated[float, Field(gt=0)] = Field(
        12.0, description="slices farther apart are no neighbours; the thickest of a head are 10 mm apart"
    )
    min_volume_ml: Annotated[float, Field(ge=0)] = Field(
        0.1, description="smaller agreed findings are not flagged: 0.1 ml is a ball of 6 mm, less is mostly noise"
    )
    key_images: Count = Field(5, description="key images told for each finding: enough to look, few enough to look at")
    overtake_s: dict[Urgency, Annotated[float, Field(ge=0)]] = Field(
        {
            Urgency.CRITICAL: 0.0,
            Urgency.URGENT: 3600.0,
            Urgency.ROUTINE: 86400.0,
        },
        description="overtake allowance: rank is arrival plus this",
    )
    reading_target_s: dict[Urgency, Seconds] = Field(
        {
            Urgency.CRITICAL: 600.0,
            Urgency.URGENT: 3600.0,
            Urgency.ROUTINE: 86400.0,
        },
        description="reading target: due time is arrival plus this",
    )
    max_wait_s: Seconds = Field(86400.0, description="hard maximum: nothing that arrived later than that overtakes")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for name, table in (("overtake_s", self.overtake_s), ("reading_target_s", self.reading_target_s)):
            if set(table) != set(Urgency):
                raise ValueError(f"{name} needs a value for each of {', '.join(Urgency)}")
        if max(self.overtake_s.values()) > self.max_wait_s:
            raise ValueError("no overtake allowance may exceed max_wait_s")
        return self


class WorklistSettings(Section):
    """The worklist's HTTP server."""

    host: str = Field("127.0.0.1", description="loopback only until tokens are set")
    port: Port = Field(8090, description="0 takes a free one")
    reader_token: SecretStr = Field(SecretStr(""), description="bearer token that sees patient data")
    ops_token: SecretStr = Field(SecretStr(""), description="bearer token that sees the queue without patient data")
    stale_s: Seconds = Field(
        30.0, description="a partition whose owner is silent that long makes reads degraded; owners speak every 2 s"
    )
    page_size: Count = Field(100, description="items of one answer unless asked; more than anybody looks at")
    live_readers: Count = Field(256, description="live readers at once, each holds a socket; more get 503")
    requests: Count = Field(320, description="requests at once, live readers included; more get 503 with Retry-After")
    requests_per_address: Count = Field(
        160, description="of one remote address, half of all; raise it behind a proxy, where all come from one"
    )


class ProbeSettings(Section):
    """Each service's /live, /ready and /metrics."""

    host: str = Field("127.0.0.1", description="address of the probes; 0.0.0.0 in a cluster")
    producer_port: Port = Field(9101, description="0 takes a free one")
    worker_port: Port = Field(9102, description="0 takes a free one")
    worklist_port: Port = Field(9103, description="0 takes a free one")


class LogSettings(Section):
    """Logs: one JSON object a line on standard error."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="DEBUG adds a line a stage")


class Settings(Section):
    """All settings. ``triage config`` prints the effective values."""

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    triton: TritonSettings = TritonSettings()
    payload: PayloadSettings = PayloadSettings()
    producer: ProducerSettings = ProducerSettings()
    limits: LimitSettings = LimitSettings()
    scoring: ScoringSettings = ScoringSettings()
    flagging: FlaggingSettings = FlaggingSettings()
    worklist: WorklistSettings = WorklistSettings()
    probes: ProbeSettings = ProbeSettings()
    log: LogSettings = LogSettings()
    model_repository: str = Field("triton_models", description="folder of the Triton model repository")
