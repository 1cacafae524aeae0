"""What is kept, as tables. Every row has an owner, so that accounts change who asks and nothing else.

Times are seconds since 1970 (UTC). A change here needs a migration; a test compares both.
"""

from __future__ import annotations

from sqlalchemy import JSON, Column, Float, ForeignKey, Index, Integer, MetaData, String, Table, Text, UniqueConstraint

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

turns = Table(
    "turns",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("conversation_id", String(64), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("model", String(500), nullable=False),
    Column("messages", JSON, nullable=False),  # [{"role", "content"}], the question last
    Column("answer", Text, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("parameters", JSON, nullable=False),
    Column("finish_reason", String(16), nullable=False),
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("first_token_ms", Float),
    Column("tokens_per_second", Float),
    Column("total_ms", Float),
    Index(None, "owner", "conversation_id"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("turn_id", ForeignKey("turns.id", ondelete="CASCADE"), nullable=False),
    Column("rating", String(8)),
    Column("comment", Text, nullable=False),
    Column("correction", Text),
    Column("tags", JSON, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    UniqueConstraint("owner", "turn_id"),
)

datasets = Table(
    "datasets",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("source", String(16), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("train_rows", Integer, nullable=False),
    Column("held_out_rows", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("report", JSON, nullable=False),  # what was left out, and why
)

runs = Table(
    "runs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("dataset_id", ForeignKey("datasets.id"), nullable=False),
    Column("base_model", String(500), nullable=False),
    Column("method", String(16), nullable=False),
    Column("recipe", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("error", JSON),  # {"template", "values", "hint"}
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("end", Integer, primary_key=True, autoincrement=False),  # the byte of the events file where it ends
    Column("owner", String(64), nullable=False),
    Column("event", JSON, nullable=False),
)
