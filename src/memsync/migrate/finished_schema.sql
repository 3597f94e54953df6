-- The app's tables as the migration leaves them, for a database that has none of them. The file is
-- run whole and in this order. Names are those that the app's ORM gives.
-- tests/migrate/test_init.py compares the result with that of a whole migration, object by object.

-- name: new_users
-- The accounts on the chat platform.
CREATE TABLE users (
    id uuid NOT NULL,
    discord_id varchar(20) NOT NULL,
    username varchar(255) NOT NULL,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id));
CREATE UNIQUE INDEX users_discord_id_key ON users (discord_id);
CREATE INDEX users_discord_id_idx ON users (discord_id);

-- name: new_personas
-- The faces of a user. Memories belong to them.
CREATE TABLE personas (
    id uuid NOT NULL,
    name varchar(255) NOT NULL,
    description text,
    content text NOT NULL,
    preferred_name varchar(255),
    pronouns varchar(100),
    owner_id uuid NOT NULL,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT personas_pkey PRIMARY KEY (id),
    CONSTRAINT personas_owner_id_fkey FOREIGN KEY (owner_id)
        REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE INDEX personas_owner_id_idx ON personas (owner_id);

-- name: new_system_prompts
-- The prompts of personalities.
CREATE TABLE system_prompts (
    id uuid NOT NULL,
    name varchar(255) NOT NULL,
    description text,
    content text NOT NULL,
    is_default boolean NOT NULL DEFAULT false,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT system_prompts_pkey PRIMARY KEY (id));
CREATE INDEX system_prompts_is_default_idx ON system_prompts (is_default);

-- name: new_llm_configs
-- The configs of models.
CREATE TABLE llm_configs (
    id uuid NOT NULL,
    name varchar(255) NOT NULL,
    description text,
    model varchar(255) NOT NULL,
    vision_model varchar(255),
    temperature numeric(3, 2),
    top_p numeric(3, 2),
    frequency_penalty numeric(3, 2),
    presence_penalty numeric(3, 2),
    repetition_penalty numeric(3, 2),
    memory_score_threshold numeric(3, 2),
    top_k integer,
    max_tokens integer,
    memory_limit integer,
    owner_id uuid,
    is_global boolean NOT NULL DEFAULT false,
    context_window_size integer NOT NULL DEFAULT 20,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT llm_configs_pkey PRIMARY KEY (id),
    CONSTRAINT llm_configs_owner_id_fkey FOREIGN KEY (owner_id)
        REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE INDEX llm_configs_owner_id_idx ON llm_configs (owner_id);
CREATE INDEX llm_configs_is_global_idx ON llm_configs (is_global);

-- name: new_personalities
-- The characters that answer.
CREATE TABLE personalities (
    id uuid NOT NULL,
    name varchar(255) NOT NULL,
    display_name varchar(255),
    slug varchar(255) NOT NULL,
    avatar_url text,
    system_prompt_id uuid,
    character_info text NOT NULL,
    personality_traits text NOT NULL,
    personality_tone varchar(500),
    personality_age varchar(100),
    personality_likes text,
    personality_dislikes text,
    conversational_goals text,
    conversational_examples text,
    custom_fields jsonb,
    voice_settings jsonb,
    image_settings jsonb,
    voice_enabled boolean NOT NULL DEFAULT false,
    image_enabled boolean NOT NULL DEFAULT false,
    memory_enabled boolean NOT NULL DEFAULT true,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT personalities_pkey PRIMARY KEY (id),
    CONSTRAINT personalities_system_prompt_id_fkey FOREIGN KEY (system_prompt_id)
        REFERENCES system_prompts (id) ON DELETE SET NULL ON UPDATE CASCADE);
CREATE UNIQUE INDEX personalities_slug_key ON personalities (slug);
CREATE INDEX personalities_slug_idx ON personalities (slug);

-- name: new_personality_owners
-- The users who may change a personality.
CREATE TABLE personality_owners (
    personality_id uuid NOT NULL,
    user_id uuid NOT NULL,
    role varchar(50) NOT NULL DEFAULT 'owner',
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT personality_owners_pkey PRIMARY KEY (personality_id, user_id),
    CONSTRAINT personality_owners_personality_id_fkey FOREIGN KEY (personality_id)
        REFERENCES personalities (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT personality_owners_user_id_fkey FOREIGN KEY (user_id)
        REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE INDEX personality_owners_personality_id_idx ON personality_owners (personality_id);
CREATE INDEX personality_owners_user_id_idx ON personality_owners (user_id);

-- name: new_user_default_personas
-- The persona that a user has unless a choice says otherwise.
CREATE TABLE user_default_personas (
    user_id uuid NOT NULL,
    persona_id uuid NOT NULL,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT user_default_personas_pkey PRIMARY KEY (user_id),
    CONSTRAINT user_default_personas_user_id_fkey FOREIGN KEY (user_id)
        REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT user_default_personas_persona_id_fkey FOREIGN KEY (persona_id)
        REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE UNIQUE INDEX user_default_personas_user_id_key ON user_default_personas (user_id);
CREATE INDEX user_default_personas_persona_id_idx ON user_default_personas (persona_id);

-- name: new_personality_default_configs
-- The config of a personality.
CREATE TABLE personality_default_configs (
    personality_id uuid NOT NULL,
    llm_config_id uuid NOT NULL,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT personality_default_configs_pkey PRIMARY KEY (personality_id),
    CONSTRAINT personality_default_configs_personality_id_fkey FOREIGN KEY (personality_id)
        REFERENCES personalities (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT personality_default_configs_llm_config_id_fkey FOREIGN KEY (llm_config_id)
        REFERENCES llm_configs (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE UNIQUE INDEX personality_default_configs_personality_id_key
    ON personality_default_configs (personality_id);
CREATE INDEX personality_default_configs_llm_config_id_idx
    ON personality_default_configs (llm_config_id);

-- name: new_user_personality_configs
-- The persona and the config that a user chose for one personality.
CREATE TABLE user_personality_configs (
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    personality_id uuid NOT NULL,
    persona_id uuid,
    llm_config_id uuid,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at timestamp(3) NOT NULL,
    CONSTRAINT user_personality_configs_pkey PRIMARY KEY (id),
    CONSTRAINT user_personality_configs_user_id_fkey FOREIGN KEY (user_id)
        REFERENCES users (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT user_personality_configs_personality_id_fkey FOREIGN KEY (personality_id)
        REFERENCES personalities (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT user_personality_configs_persona_id_fkey FOREIGN KEY (persona_id)
        REFERENCES personas (id) ON DELETE SET NULL ON UPDATE CASCADE,
    CONSTRAINT user_personality_configs_llm_config_id_fkey FOREIGN KEY (llm_config_id)
        REFERENCES llm_configs (id) ON DELETE SET NULL ON UPDATE CASCADE);
CREATE UNIQUE INDEX user_personality_configs_user_id_personality_id_key
    ON user_personality_configs (user_id, personality_id);
CREATE INDEX user_personality_configs_user_id_idx ON user_personality_configs (user_id);
CREATE INDEX user_personality_configs_personality_id_idx
    ON user_personality_configs (personality_id);

-- name: new_conversation_history
-- The messages.
CREATE TABLE conversation_history (
    id uuid NOT NULL,
    channel_id varchar(20) NOT NULL,
    personality_id uuid NOT NULL,
    persona_id uuid NOT NULL,
    role varchar(20) NOT NULL,
    content text NOT NULL,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT conversation_history_pkey PRIMARY KEY (id),
    CONSTRAINT conversation_history_personality_id_fkey FOREIGN KEY (personality_id)
        REFERENCES personalities (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT conversation_history_persona_id_fkey FOREIGN KEY (persona_id)
        REFERENCES personas (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE INDEX conversation_history_channel_id_personality_id_created_at_idx
    ON conversation_history (channel_id, personality_id, created_at DESC);
CREATE INDEX conversation_history_persona_id_idx ON conversation_history (persona_id);
CREATE INDEX conversation_history_channel_id_personality_id_persona_id_c_idx
    ON conversation_history (channel_id, personality_id, persona_id, created_at DESC, id DESC);

-- name: new_activated_channels
-- The channels in which a personality answers by itself.
CREATE TABLE activated_channels (
    id uuid NOT NULL,
    channel_id varchar(20) NOT NULL,
    personality_id uuid NOT NULL,
    auto_respond boolean NOT NULL DEFAULT true,
    created_by uuid,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT activated_channels_pkey PRIMARY KEY (id),
    CONSTRAINT activated_channels_personality_id_fkey FOREIGN KEY (personality_id)
        REFERENCES personalities (id) ON DELETE CASCADE ON UPDATE CASCADE,
    CONSTRAINT activated_channels_created_by_fkey FOREIGN KEY (created_by)
        REFERENCES users (id) ON DELETE SET NULL ON UPDATE CASCADE);
CREATE UNIQUE INDEX activated_channels_channel_id_personality_id_key
    ON activated_channels (channel_id, personality_id);

-- name: new_pending_memories
-- The app's own list of memories that it still has to write.
CREATE TABLE pending_memories (
    id uuid NOT NULL,
    conversation_history_id uuid NOT NULL,
    persona_id uuid NOT NULL,
    personality_id uuid NOT NULL,
    personality_name varchar(255),
    text text NOT NULL,
    metadata jsonb NOT NULL,
    created_at timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    attempts integer NOT NULL DEFAULT 0,
    last_attempt_at timestamp(3),
    error text,
    CONSTRAINT pending_memories_pkey PRIMARY KEY (id),
    CONSTRAINT pending_memories_conversation_history_id_fkey FOREIGN KEY (conversation_history_id)
        REFERENCES conversation_history (id) ON DELETE CASCADE ON UPDATE CASCADE);
CREATE UNIQUE INDEX pending_memories_conversation_history_id_key
    ON pending_memories (conversation_history_id);
CREATE INDEX pending_memories_persona_id_idx ON pending_memories (persona_id);
CREATE INDEX pending_memories_personality_id_idx ON pending_memories (personality_id);
CREATE INDEX pending_memories_created_at_idx ON pending_memories (created_at);
