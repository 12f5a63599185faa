--[[
--mig-share=N enforced by slurmctld: the server-side alternative to the plugin's own way.

The SPANK plugin turns --mig-share=N into --gres=mig:N inside srun, sbatch and salloc. Where a site wants slurmctld to do
it, because jobs also come through slurmrestd or from hosts without the plugin, this does the same for every new job:

    slurm.conf:  JobSubmitPlugins=lua
    this file:   beside slurm.conf, as job_submit.lua; a site that has one already calls migshare_submit() from it

It only adds the GRES where the job asks for none of that name: slurmctld cannot tell a count that was typed from one that
came with the environment, so an explicit --gres wins here, and it is the plugin that refuses a typed disagreement. An sbatch
inside a job that only inherits the count gets none, as with the plugin. Steps do not pass through here.
]]

-- "gres:" up to 23.02, "gres/" from 23.11: slurmctld refuses the other form as an invalid trackable resource.
local SEPARATOR = ":"
local MOST = 224
local OPTION = "_SLURM_SPANK_OPTION_migshare_mig_share="

-- The option's text, or nil where it was not given.
local function option(job)
	for i = 0, (job.spank_job_env_size or 0) - 1 do
		local entry = job.spank_job_env[i]
		if entry ~= nil and entry:sub(1, #OPTION) == OPTION then
			return entry:sub(#OPTION + 1)
		end
	end
	return nil
end

-- Number of leaves in the option's text: nil where it names none, false where it is not a valid number.
local function count(text)
	for word in text:gmatch("[^,]+") do
		if word:match("^%d+$") then
			local n = tonumber(word)
			return n >= 1 and n <= MOST and n or false
		end
	end
	return nil
end

-- Whether a batch job's option is only the one of the job that it was submitted from.
local function inherited(job, text)
	-- slurmctld has the environment of batch jobs only, and complains when asked for another's.
	local environment = job.script ~= nil and job.environment or nil
	return environment ~= nil and environment["SLURM_JOB_ID"] ~= nil and environment["SLURM_SPANK_" .. OPTION:sub(1, -2)] == text
end

-- Whether a TRES request such as "gres:gpu:1,gres:mig:1g.10gb:2" names leaves.
local function asked(tres)
	for entry in (tres or ""):gmatch("[^,]+") do
		local rest = entry:gsub("^gres[:/]", "")
		if rest == "mig" or rest:match("^mig[:=]") then
			return true
		end
	end
	return false
end

function migshare_submit(job)
	local text = option(job)
	if text == nil or text == "" or text == "(null)" then
		return slurm.SUCCESS
	end
	local wanted = count(text)
	if wanted == false then
		slurm.log_user("migshare: --mig-share=%s: a number of leaves is from 1 to %d", text, MOST)
		return slurm.ERROR
	end
	if wanted == nil or inherited(job, text) or asked(job.tres_per_node) or asked(job.tres_per_task) then
		return slurm.SUCCESS
	end
	local gres = "gres" .. SEPARATOR .. "mig:" .. wanted
	local others = job.tres_per_node
	job.tres_per_node = (others ~= nil and others ~= "") and (others .. "," .. gres) or gres
	return slurm.SUCCESS
end

function slurm_job_submit(job_desc, part_list, submit_uid)
	return migshare_submit(job_desc)
end

function slurm_job_modify(job_desc, job_rec, part_list, modify_uid)
	return slurm.SUCCESS
end

return slurm.SUCCESS
