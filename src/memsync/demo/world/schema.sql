-- The app's database before the migration, as its ORM made it. For an empty database. The sections
-- stand in the ORM's order (tables, indexes, foreign keys), so rows can be loaded between the first
-- section and the rest.

-- CreateTable
CREATE TABLE "_prisma_migrations" (
    "id" VARCHAR(36) NOT NULL,
    "checksum" VARCHAR(64) NOT NULL,
    "finished_at" TIMESTAMPTZ,
    "migration_name" VARCHAR(255) NOT NULL,
    "logs" TEXT,
    "rolled_back_at" TIMESTAMPTZ,
    "started_at" TIMESTAMPTZ NOT NULL DEFAULT now(),
    "applied_steps_count" INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT "_prisma_migrations_pkey" PRIMARY KEY ("id")
);

INSERT INTO "_prisma_migrations"
    ("id", "checksum", "finished_at", "migration_name", "started_at", "applied_steps_count")
VALUES
    ('65fd791b-4ea9-56ca-bca6-7e37fb39d55f',
     '45cb015e1231795232fb3e0b9318bb7dce137523356fae4928df80f806fe6782',
     '2025-08-11 09:04:12.412+00', '20250811090412_init',
     '2025-08-11 09:04:12.187+00', 1),
    ('56bddfa9-f427-55b9-b16d-df7b0289a582',
     '56a00c496a3b5a4b5bd5a8172e5363ebd9e6782c051da239a025836b3ba49c74',
     '2025-08-29 18:33:55.412+00', '20250829183355_add_llm_configs',
     '2025-08-29 18:33:55.187+00', 1),
    ('671fba53-942b-5c55-a72c-b9e82beceb1c',
     '3d7990658dfa649afacc614c7c0917c407241b02372e16972f8efc0ba960b7f2',
     '2025-09-14 10:22:33.412+00', '20250914102233_add_user_personality_settings',
     '2025-09-14 10:22:33.187+00', 1),
    ('322d8995-66ac-5728-b865-7bf73706e309',
     '2e45e4578aa8971ecb5560c68936b7b92f76de41ed76926a7729f60a47deb539',
     '2025-09-27 20:18:46.412+00', '20250927201846_add_activated_channels',
     '2025-09-27 20:18:46.187+00', 1),
    ('5b18ed60-d3d8-547f-8ab1-e30d21f535b3',
     'e56e551768fb70652a3fb1b8de3cd513be71b97b30f3926ba254aa966c2af807',
     '2025-10-05 07:41:29.412+00', '20251005074129_add_conversation_history',
     '2025-10-05 07:41:29.187+00', 1),
    ('e20de151-5aa0-5dad-8259-28f8737436c0',
     'd49b856a8a7cfb369f976e74e4dc04c6dcd3dabede05e5226076ba3a292eda0d',
     '2025-10-17 19:55:24.412+00', '20251017195524_add_pending_memories',
     '2025-10-17 19:55:24.187+00', 1);

-- CreateTable
CREATE TABLE "users" (
    "id" UUID NOT NULL,
    "discord_id" VARCHAR(20) NOT NULL,
    "username" VARCHAR(255) NOT NULL,
    "global_persona_id" UUID,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "users_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "personas" (
    "id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "description" TEXT,
    "content" TEXT NOT NULL,
    "preferred_name" VARCHAR(255),
    "pronouns" VARCHAR(100),
    "owner_id" UUID,
    "is_global" BOOLEAN NOT NULL DEFAULT false,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "personas_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "system_prompts" (
    "id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "description" TEXT,
    "content" TEXT NOT NULL,
    "is_default" BOOLEAN NOT NULL DEFAULT false,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "system_prompts_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "llm_configs" (
    "id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "description" TEXT,
    "model" VARCHAR(255) NOT NULL,
    "vision_model" VARCHAR(255),
    "temperature" DECIMAL(3,2),
    "top_p" DECIMAL(3,2),
    "frequency_penalty" DECIMAL(3,2),
    "presence_penalty" DECIMAL(3,2),
    "repetition_penalty" DECIMAL(3,2),
    "memory_score_threshold" DECIMAL(3,2),
    "top_k" INTEGER,
    "max_tokens" INTEGER,
    "memory_limit" INTEGER,
    "is_default" BOOLEAN NOT NULL DEFAULT false,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "llm_configs_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "personalities" (
    "id" UUID NOT NULL,
    "name" VARCHAR(255) NOT NULL,
    "display_name" VARCHAR(255),
    "slug" VARCHAR(255) NOT NULL,
    "avatar_url" TEXT,
    "system_prompt_id" UUID,
    "llm_config_id" UUID,
    "character_info" TEXT NOT NULL,
    "personality_traits" TEXT NOT NULL,
    "personality_tone" VARCHAR(500),
    "personality_age" VARCHAR(100),
    "personality_likes" TEXT,
    "personality_dislikes" TEXT,
    "conversational_goals" TEXT,
    "conversational_examples" TEXT,
    "custom_fields" JSONB,
    "voice_settings" JSONB,
    "image_settings" JSONB,
    "voice_enabled" BOOLEAN NOT NULL DEFAULT false,
    "image_enabled" BOOLEAN NOT NULL DEFAULT false,
    "memory_enabled" BOOLEAN NOT NULL DEFAULT true,
    "context_window_size" INTEGER NOT NULL DEFAULT 20,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "personalities_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "personality_owners" (
    "personality_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "role" VARCHAR(50) NOT NULL DEFAULT 'owner',
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "personality_owners_pkey" PRIMARY KEY ("personality_id", "user_id")
);

-- CreateTable
CREATE TABLE "user_personality_settings" (
    "id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "personality_id" UUID NOT NULL,
    "persona_id" UUID,
    "llm_config_id" UUID,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "user_personality_settings_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "conversation_history" (
    "id" UUID NOT NULL,
    "channel_id" VARCHAR(20) NOT NULL,
    "personality_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "role" VARCHAR(20) NOT NULL,
    "content" TEXT NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "conversation_history_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "activated_channels" (
    "id" UUID NOT NULL,
    "channel_id" VARCHAR(20) NOT NULL,
    "personality_id" UUID NOT NULL,
    "auto_respond" BOOLEAN NOT NULL DEFAULT true,
    "created_by" UUID,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT "activated_channels_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "pending_memories" (
    "id" UUID NOT NULL,
    "conversation_history_id" UUID NOT NULL,
    "persona_id" UUID NOT NULL,
    "personality_id" UUID NOT NULL,
    "personality_name" VARCHAR(255),
    "text" TEXT NOT NULL,
    "metadata" JSONB NOT NULL,
    "created_at" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "attempts" INTEGER NOT NULL DEFAULT 0,
    "last_attempt_at" TIMESTAMP(3),
    "error" TEXT,
    CONSTRAINT "pending_memories_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "users_discord_id_key" ON "users"("discord_id");

-- CreateIndex
CREATE UNIQUE INDEX "personalities_slug_key" ON "personalities"("slug");

-- CreateIndex
CREATE UNIQUE INDEX "user_personality_settings_user_id_personality_id_key"
    ON "user_personality_settings"("user_id", "personality_id");

-- CreateIndex
CREATE UNIQUE INDEX "activated_channels_channel_id_personality_id_key"
    ON "activated_channels"("channel_id", "personality_id");

-- CreateIndex
CREATE UNIQUE INDEX "pending_memories_conversation_history_id_key"
    ON "pending_memories"("conversation_history_id");

-- CreateIndex
CREATE INDEX "users_discord_id_idx" ON "users"("discord_id");

-- CreateIndex
CREATE INDEX "personas_owner_id_idx" ON "personas"("owner_id");

-- CreateIndex
CREATE INDEX "idx_personas_global" ON "personas"("is_global");

-- CreateIndex
CREATE INDEX "idx_system_prompts_default" ON "system_prompts"("is_default");

-- CreateIndex
CREATE INDEX "idx_llm_configs_default" ON "llm_configs"("is_default");

-- CreateIndex
CREATE INDEX "personalities_slug_idx" ON "personalities"("slug");

-- CreateIndex
CREATE INDEX "personality_owners_personality_id_idx" ON "personality_owners"("personality_id");

-- CreateIndex
CREATE INDEX "personality_owners_user_id_idx" ON "personality_owners"("user_id");

-- CreateIndex
CREATE INDEX "user_personality_settings_user_id_idx" ON "user_personality_settings"("user_id");

-- CreateIndex
CREATE INDEX "user_personality_settings_personality_id_idx"
    ON "user_personality_settings"("personality_id");

-- CreateIndex
CREATE INDEX "conversation_history_channel_id_personality_id_created_at_idx"
    ON "conversation_history"("channel_id", "personality_id", "created_at" DESC);

-- CreateIndex
CREATE INDEX "conversation_history_user_id_idx" ON "conversation_history"("user_id");

-- CreateIndex
CREATE INDEX "pending_memories_persona_id_idx" ON "pending_memories"("persona_id");

-- CreateIndex
CREATE INDEX "pending_memories_personality_id_idx" ON "pending_memories"("personality_id");

-- CreateIndex
CREATE INDEX "pending_memories_created_at_idx" ON "pending_memories"("created_at");

-- AddForeignKey
ALTER TABLE "users"
    ADD CONSTRAINT "users_global_persona_id_fkey"
    FOREIGN KEY ("global_persona_id") REFERENCES "personas"("id")
    ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "personas"
    ADD CONSTRAINT "personas_owner_id_fkey"
    FOREIGN KEY ("owner_id") REFERENCES "users"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "personalities"
    ADD CONSTRAINT "personalities_system_prompt_id_fkey"
    FOREIGN KEY ("system_prompt_id") REFERENCES "system_prompts"("id")
    ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "personalities"
    ADD CONSTRAINT "personalities_llm_config_id_fkey"
    FOREIGN KEY ("llm_config_id") REFERENCES "llm_configs"("id")
    ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "personality_owners"
    ADD CONSTRAINT "personality_owners_personality_id_fkey"
    FOREIGN KEY ("personality_id") REFERENCES "personalities"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "personality_owners"
    ADD CONSTRAINT "personality_owners_user_id_fkey"
    FOREIGN KEY ("user_id") REFERENCES "users"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "user_personality_settings"
    ADD CONSTRAINT "user_personality_settings_user_id_fkey"
    FOREIGN KEY ("user_id") REFERENCES "users"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "user_personality_settings"
    ADD CONSTRAINT "user_personality_settings_personality_id_fkey"
    FOREIGN KEY ("personality_id") REFERENCES "personalities"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "user_personality_settings"
    ADD CONSTRAINT "user_personality_settings_persona_id_fkey"
    FOREIGN KEY ("persona_id") REFERENCES "personas"("id")
    ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "user_personality_settings"
    ADD CONSTRAINT "user_personality_settings_llm_config_id_fkey"
    FOREIGN KEY ("llm_config_id") REFERENCES "llm_configs"("id")
    ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "conversation_history"
    ADD CONSTRAINT "conversation_history_personality_id_fkey"
    FOREIGN KEY ("personality_id") REFERENCES "personalities"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "conversation_history"
    ADD CONSTRAINT "conversation_history_user_id_fkey"
    FOREIGN KEY ("user_id") REFERENCES "users"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "activated_channels"
    ADD CONSTRAINT "activated_channels_personality_id_fkey"
    FOREIGN KEY ("personality_id") REFERENCES "personalities"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "activated_channels"
    ADD CONSTRAINT "activated_channels_created_by_fkey"
    FOREIGN KEY ("created_by") REFERENCES "users"("id")
    ON DELETE SET NULL ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "pending_memories"
    ADD CONSTRAINT "pending_memories_conversation_history_id_fkey"
    FOREIGN KEY ("conversation_history_id") REFERENCES "conversation_history"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;
